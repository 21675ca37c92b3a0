import Foundation
import UI
import Yams

struct ThemeFailure: Error, CustomStringConvertible {
    var description: String
}

/// The themes: one compiled in, the others as files that people can read, copy and change.
struct ThemeLibrary: Sendable {
    /// Searched in this order; the first file of a name wins.
    var directories: [String]

    init(environment: [String: String] = ProcessInfo.processInfo.environment, executable: String? = Bundle.main.executablePath) {
        directories = Paths.shared("themes", executable: executable)
    }

    init(directories: [String]) { self.directories = directories }

    /// All that can be chosen, the compiled-in one first, then by name.
    func names() -> [String] {
        var found: Set<String> = []
        for directory in directories {
            for file in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] where file.hasSuffix(".yaml") && !file.hasPrefix(".") {
                found.insert(String(file.dropLast(5)))
            }
        }
        found.remove(Theme.quarterdeckDark.name)
        return [Theme.quarterdeckDark.name] + found.sorted()
    }

    func theme(named name: String) -> Result<Theme, ThemeFailure> {
        for directory in directories where !name.contains("/") {
            let path = directory + "/" + name + ".yaml"
            guard let data = FileManager.default.contents(atPath: path) else { continue }
            do {
                return .success(try ThemeLibrary.parse(String(decoding: data, as: UTF8.self), name: name))
            } catch {
                return .failure(ThemeFailure(description: "\(Paths.abbreviated(path)): \(error.description)"))
            }
        }
        if name == Theme.quarterdeckDark.name { return .success(.quarterdeckDark) }
        return .failure(ThemeFailure(description: "no theme \"\(name)\"; there are: \(names().joined(separator: ", "))"))
    }

    /// Reads a theme file: `base`, `palette`, `slots`, `gradients`.
    /// - Throws: `ThemeFailure` with all that is wrong in one line.
    static func parse(_ text: String, name: String) throws(ThemeFailure) -> Theme {
        let document: Node?
        do { document = try YAMLFile.compose(text) } catch { throw ThemeFailure(description: "not valid YAML: \(String(describing: error).split(separator: "\n").first ?? "")") }
        func entries(_ node: Node) -> [(key: String, value: Node)]? {
            guard case .mapping(let mapping) = node else { return nil }
            return mapping.map { ($0.key.scalar?.string ?? "", $0.value) }
        }
        guard let document, let fields = entries(document) else { throw ThemeFailure(description: "not a mapping of palette, slots and gradients") }
        let known = ["name", "description", "base", "palette", "slots", "gradients", "gradient"]
        if let unknown = fields.map(\.key).filter({ !known.contains($0) }).sorted().first { throw ThemeFailure(description: "unknown entry \"\(unknown)\"") }
        func field(_ key: String) -> Node? { fields.first { $0.key == key }?.value }
        var base = Theme.Base.dark
        if let text = field("base") {
            guard let read = text.scalar.flatMap({ Theme.Base(rawValue: $0.string) }) else { throw ThemeFailure(description: "base: neither dark nor light") }
            base = read
        }
        func table(_ key: String) throws(ThemeFailure) -> [String: String] {
            guard let value = field(key), !["", "~", "null"].contains(value.scalar?.string) else { return [:] }
            guard let entries = entries(value) else { throw ThemeFailure(description: "\(key): not a mapping") }
            var result: [String: String] = [:]
            for (name, entry) in entries {
                switch entry {
                case .scalar(let scalar): result[name] = scalar.string
                case .sequence(let sequence): result[name] = sequence.map { $0.scalar?.string ?? "" }.joined(separator: " ")
                default: throw ThemeFailure(description: "\(key).\(name): not a colour")
                }
            }
            return result
        }
        let palette = try table("palette"), slots = try table("slots")
        let gradients = try table("gradients").merging(try table("gradient")) { a, _ in a }
        do {
            return try Theme(name: name, base: base, palette: palette, slots: slots, gradients: gradients)
        } catch {
            throw ThemeFailure(description: error.problems.joined(separator: "; "))
        }
    }
}
