import Foundation
@testable import UI

/// Reads just as much YAML as our theme files use; the app reads them with Yams.
enum ThemeFile {
    static func read(_ name: String) throws -> Theme {
        let here = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        let path = here.deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("themes/\(name).yaml")
        var tables: [String: [String: String]] = [:]
        var base = Theme.Base.dark
        var section = ""
        for line in try String(contentsOf: path, encoding: .utf8).split(separator: "\n") where !line.hasPrefix("#") {
            let parts = line.split(separator: ":", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
            let value = parts.count > 1 ? parts[1].filter { !"\"[],".contains($0) } : ""
            if line.hasPrefix(" ") { tables[section, default: [:]][parts[0]] = value } else {
                section = parts[0]
                if section == "base" { base = Theme.Base(rawValue: value)! }
            }
        }
        return try Theme(name: name, base: base, palette: tables["palette"] ?? [:], slots: tables["slots"] ?? [:], gradients: tables["gradients"] ?? [:])
    }
}
