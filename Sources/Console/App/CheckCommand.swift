import ArgumentParser
import Foundation
import Replica
import Server

/// Verifies a stopped node's files. Exit status: 0 sound, 1 damaged, 2 no verdict.
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Verify the files of a stopped node.",
        discussion: """
            Reads every record of the log and of the store in DATA-DIR, changes nothing, and says what is damaged, where, and what to do. \
            Exit status: 0 sound, 1 damaged, 2 cannot check.
            """
    )

    @Argument(help: ArgumentHelp("The node's data directory.", valueName: "data-dir")) var directory: String
    @Option(name: .customLong("wal-dir"), help: "Where its log is, if it was moved. (default: where the node had it)") var walDir: String?
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        var directory = directory
        while directory.count > 1, directory.hasSuffix("/") { directory.removeLast() }
        let line = ProgressLine()
        let found: MemberInspection
        do throws(DataDirectoryCheck.Refusal) {
            found = try DataDirectoryCheck.run(directory, logDirectory: walDir.map { URL(fileURLWithPath: $0).standardizedFileURL.path }) { line.show("checking the \($0) \(Int($1 * 100)) %") }
        } catch {
            line.clear()
            throw CommandFailure(description: error.description, status: 2)
        }
        line.clear()
        let report = CheckReport(directory: directory, found)
        print(json ? try report.json() : report.text)
        if !found.isSound { throw ExitCode(1) }
    }
}

/// The result in plain words, and for programs.
struct CheckReport: Encodable {
    struct Problem: Encodable {
        var place: String
        var problem: String
    }
    var directory: String
    var sound: Bool
    var problems: [Problem]
    var remarks: [String]
    var remedy: String?
    var cluster: String?
    var member: String?
    /// Where the log is when it has a directory of its own.
    var logDirectory: String?
    var segments: Int
    var firstEntry: UInt64?
    var lastEntry: UInt64?
    var term: UInt64?
    var appliedEntry: UInt64?
    var stateHash: String?
    var revision: Int64?
    var compactRevision: Int64?
    var keys: Int?
    var records: Int?
    var leases: Int?
    var members: Int

    init(directory: String, _ found: MemberInspection) {
        self.directory = directory
        sound = found.isSound
        problems = found.problems.map { Problem(place: CheckReport.short($0.place, in: directory), problem: CheckReport.short($0.text, in: directory)) }
        remarks = found.remarks.map { CheckReport.short($0, in: directory) }
        remedy = found.isSound ? nil : MemberInspection.remedy
        cluster = found.identity.map { "\($0.cluster)" }
        member = found.identity.map { "\($0.member)" }
        logDirectory = found.logDirectory
        segments = found.segments
        firstEntry = found.entries?.lowerBound.rawValue
        lastEntry = found.entries?.upperBound.rawValue
        term = found.hardState?.term.rawValue
        appliedEntry = found.applied?.index.rawValue
        stateHash = found.stateHash.map { "\($0)" }
        revision = found.store?.revision.rawValue
        compactRevision = found.store.flatMap { $0.compactRevision.rawValue > 0 ? $0.compactRevision.rawValue : nil }
        keys = found.store?.keys
        records = found.store?.records
        leases = found.store?.leases
        members = found.members.count
    }

    private static func short(_ text: String, in directory: String) -> String { text.replacingOccurrences(of: directory + "/", with: "") }

    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }

    var text: String {
        var lines: [String] = []
        lines.append(sound ? "\(directory) is sound." : "\(directory) is DAMAGED: \(problems.count == 1 ? "1 problem" : "\(problems.count) problems").")
        if let cluster, let member { lines.append("  member \(member) of cluster \(cluster)") }
        if segments > 0 {
            var line = "  log: \(segments == 1 ? "1 segment" : "\(segments) segments")"
            if let logDirectory { line += " in \(logDirectory)" }
            if let firstEntry, let lastEntry { line += ", entries \(firstEntry) to \(lastEntry)" } else if sound { line += ", no entries" }
            if let term { line += ", term \(term)" }
            lines.append(line)
        }
        if let revision, let keys, let records, let leases {
            var line = "  store: revision \(revision), \(keys == 1 ? "1 key" : "\(keys) keys") in \(records) records, \(leases == 1 ? "1 lease" : "\(leases) leases")"
            if let compactRevision { line += ", compacted at \(compactRevision)" }
            if let appliedEntry { line += ", entries applied up to \(appliedEntry)" }
            lines.append(line)
        }
        if !problems.isEmpty { lines.append("") }
        for problem in problems { lines.append("  \(problem.place): \(problem.problem)") }
        for remark in remarks { lines.append("  Note: \(remark).") }
        if let remedy {
            lines.append("")
            lines.append("What to do: \(remedy)")
        }
        return lines.joined(separator: "\n")
    }
}
