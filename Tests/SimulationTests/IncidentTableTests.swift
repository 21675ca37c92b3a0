import Base
import Foundation
import Testing

/// docs/incidents.md says what is there.
@Suite struct IncidentTableTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private static func text(_ path: String) throws -> String { try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8) }

    /// "Target.test" of every test function.
    private static func tests() throws -> Set<String> {
        var found: Set<String> = []
        let tests = root.appendingPathComponent("Tests")
        for target in try FileManager.default.contentsOfDirectory(atPath: tests.path) {
            let folder = tests.appendingPathComponent(target)
            for name in (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [] where name.hasSuffix(".swift") {
                let text = try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8)
                // An attribute may take lines of arguments.
                for match in text.matches(of: #/@Test[\s\S]*?func ([A-Za-z0-9_]+)\(/#) { found.insert("\(target).\(match.1)") }
            }
        }
        return found
    }

    @Test func everyRowNamesTestsThatExist() throws {
        let rows = try Self.text("docs/incidents.md").split(separator: "\n").filter { $0.wholeMatch(of: #/\| \d+ \|.*/#) != nil }
        #expect(rows.map { $0.split(separator: "|")[0].trimmingCharacters(in: .whitespaces) } == (1...52).map(String.init))
        let tests = try Self.tests()
        for row in rows {
            let named = row.matches(of: #/`([A-Za-z0-9_.]+)`/#).map { String($0.1) }
            #expect(!named.isEmpty || row.contains("waits for"), "\(row)")
            for name in named { #expect(tests.contains(name), "no test \(name): \(row)") }
        }
    }

    @Test func plantedFaultsNamedThereExistAndAllAreHunted() throws {
        for match in try Self.text("docs/incidents.md").matches(of: #/planted ([a-z][A-Za-z]+)/#) where match.1 != "fault" {
            #expect(PlantedFault(rawValue: String(match.1)) != nil, "no planted fault \(match.1)")
        }
        let hunted = try Self.text("Tests/run")
        for fault in PlantedFault.allCases { #expect(hunted.contains(" \(fault.rawValue) "), "\(fault.rawValue) is not in Tests/run") }
    }
}
