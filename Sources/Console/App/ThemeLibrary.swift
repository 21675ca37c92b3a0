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
        let document: Any?
        do { document = try Yams.load(yaml: text) } catch { throw ThemeFailure(description: "not valid YAML: \(String(describing: error).split(separator: "\n").first ?? "")") }
        guard let fields = document as? [String: Any] else { throw ThemeFailure(description: "not a mapping of palette, slots and gradients") }
        let known = ["name", "description", "base", "palette", "slots", "gradients", "gradient"]
        if let unknown = fields.keys.filter({ !known.contains($0) }).sorted().first { throw ThemeFailure(description: "unknown entry \"\(unknown)\"") }
        var base = Theme.Base.dark
        if let text = fields["base"] {
            guard let read = (text as? String).flatMap(Theme.Base.init(rawValue:)) else { throw ThemeFailure(description: "base: neither dark nor light") }
            base = read
        }
        func table(_ key: String) throws(ThemeFailure) -> [String: String] {
            guard let value = fields[key], !(value is NSNull) else { return [:] }
            guard let entries = value as? [String: Any] else { throw ThemeFailure(description: "\(key): not a mapping") }
            var result: [String: String] = [:]
            for (name, entry) in entries {
                if let list = entry as? [Any] {
                    result[name] = list.map { "\($0)" }.joined(separator: " ")
                } else {
                    result[name] = "\(entry)"
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
