import Foundation
import Yams

/// `--config-file`: etcd's YAML (JSON is YAML, too), by the flags that say the same. What is not in the file has its default.
enum ServeConfigFile {
    /// Empty for what has no value.
    /// - Throws: one line that names the file.
    static func values(_ path: String) throws(CommandFailure) -> [String: String] {
        guard let data = FileManager.default.contents(atPath: path), let text = String(data: data, encoding: .utf8) else {
            throw CommandFailure(description: "--config-file \(path): cannot be read: does it exist, and may this user read it?", status: 1)
        }
        return try values(ofYAML: text, path: path)
    }

    static func values(ofYAML text: String, path: String) throws(CommandFailure) -> [String: String] {
        func wrong(_ what: String) -> CommandFailure { CommandFailure(description: "--config-file \(path): \(what)", status: 1) }
        let root: Node?
        do { root = try Yams.compose(yaml: text) } catch {
            throw wrong("not YAML: " + "\(error)".split(separator: "\n").joined(separator: " "))
        }
        guard let root, !isNull(root) else { return [:] }
        guard let settings = root.mapping else { throw wrong("expected lines of the form name: value") }
        var values: [String: String] = [:]
        for (key, value) in settings {
            guard let name = key.scalar?.string else { throw wrong("a name that is no text") }
            if let prefix = sections[name] {
                if isNull(value) { continue }
                guard let section = value.mapping else { throw wrong("\(name): expected lines of the form name: value below it") }
                for (key, value) in section {
                    guard let inner = key.scalar?.string else { throw wrong("\(name): a name that is no text") }
                    guard let flag = flag(inner, in: prefix) else { continue }
                    values[flag] = try self.value(value, "\(name).\(inner)", wrong)
                }
            } else {
                // What nobody knows may look as it likes: it is told by its name.
                values[name] = ServeFlags.byName[name] == nil ? "" : try self.value(value, name, wrong)
            }
        }
        return values
    }

    /// What the names in etcd's sections begin with when they are flags.
    private static let sections = ["client-transport-security": "", "peer-transport-security": "peer-", "socket-options": "socket-"]

    /// nil: a name that is no flag.
    private static func flag(_ name: String, in prefix: String) -> String? {
        switch name {
        case "allowed-cn", "allowed-cns": prefix.isEmpty ? nil : "peer-cert-allowed-cn"
        case "skip-client-san-verification": prefix.isEmpty ? nil : "experimental-peer-skip-client-san-verification"
        case "allowed-hostname", "allowed-hostnames": prefix.isEmpty ? "client-cert-allowed-hostname" : "peer-cert-allowed-hostname"
        default: prefix + name
        }
    }

    /// Empty for nothing, which leaves the default. A list is what its members are with commas between.
    private static func value(_ node: Node, _ name: String, _ wrong: (String) -> CommandFailure) throws(CommandFailure) -> String {
        if isNull(node) { return "" }
        if let text = node.scalar?.string { return text }
        guard let list = node.sequence else { throw wrong("\(name): expected a value") }
        var parts: [String] = []
        for part in list {
            guard let text = part.scalar?.string else { throw wrong("\(name): expected a list of values") }
            parts.append(text)
        }
        return parts.joined(separator: ",")
    }

    private static func isNull(_ node: Node) -> Bool { node.scalar != nil && node.tag.description == Tag.Name.null.rawValue }
}
