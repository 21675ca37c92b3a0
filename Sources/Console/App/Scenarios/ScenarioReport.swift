import Foundation
import UI

/// How a scenario went: what `quarterdeck scenario --json` prints. Names are the contract with whoever reads it.
struct ScenarioReport: Codable, Sendable {
    struct Expectation: Codable, Sendable {
        var what: String
        var wanted: String
        var found: String
        var held: Bool
    }

    struct Step: Codable, Sendable {
        /// 1 ... as played: a repeated step is there each time.
        var number: Int
        var line: Int
        var action: String
        var caption: String?
        /// What came of it, a line for people.
        var detail: String
        var startSeconds: Double
        var seconds: Double
        var failed: Bool
        var expectations: [Expectation]?
    }

    struct Election: Codable, Sendable {
        var term: UInt64
        var leader: String
        var atSeconds: Double
        var leaderlessMilliseconds: Int64
    }

    struct Leaderless: Codable, Sendable {
        var count: Int
        var longestMilliseconds: Int64
        var totalMilliseconds: Int64
    }

    /// The canary's small writes, fifty a second.
    struct Canary: Codable, Sendable {
        var acknowledged: Int
        var retried: Int
        var failed: Int
        var longestGapMilliseconds: Int64
        var confirmed: Int
        var lost: Int
    }

    struct Load: Codable, Sendable {
        var acknowledgedWrites: Int
        var confirmedWrites: Int
        var unknownWrites: Int
        var checkedReads: Int
        var failedOperations: Int
    }

    enum Outcome: String, Codable, Sendable { case passed, failed, stopped }

    var scenario: String
    var title: String
    var engine: String
    var nodes: Int
    var outcome: Outcome
    /// The first thing that was not as it should be.
    var failure: String?
    var seconds: Double
    var steps: [Step]
    var elections: [Election]
    var leaderless: Leaderless
    var canary: Canary
    var load: Load
    /// What the consistency checks found; empty: consistent.
    var violations: [String]

    var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: (try? encoder.encode(self)) ?? Data("{}".utf8), as: UTF8.self)
    }

    /// The last line for people.
    var summary: String {
        var parts = ["\(elections.count) \(elections.count == 1 ? "election" : "elections")"]
        if leaderless.longestMilliseconds > 0 { parts.append("without a leader for \(leaderless.longestMilliseconds) ms at most") }
        parts.append("no write acknowledged for \(canary.longestGapMilliseconds) ms at most")
        let written = load.acknowledgedWrites + canary.acknowledged
        parts.append("\(ScenarioText.count(written)) acknowledged writes" + (written > 0 && violations.isEmpty && canary.lost == 0 ? ", none lost" : ""))
        return "\(outcome.rawValue) in \(String(format: "%.1f", seconds)) s: " + parts.joined(separator: ", ")
    }
}

/// Words for what scenarios do.
enum ScenarioText {
    /// 48,210
    static func count(_ n: Int) -> String {
        let digits = Array(String(n))
        return digits.indices.map { (index: Int) in index > 0 && (digits.count - index).isMultiple(of: 3) ? ",\(digits[index])" : String(digits[index]) }.joined()
    }

    static func milliseconds(_ n: Int64) -> String { n < 10_000 ? "\(n) ms" : String(format: "%.1f s", Double(n) / 1_000) }

    static func name(_ action: Scenario.Action) -> String {
        switch action {
        case .say: "say"
        case .pick: "pick"
        case .load: "load"
        case .fault: "fault"
        case .heal: "heal"
        case .restart: "restart"
        case .lead: "lead"
        case .put: "put"
        case .compact: "compact"
        case .wait: "wait"
        case .hold: "hold"
        case .pause: "pause"
        case .repeated: "repeat"
        case .expect: "expect"
        }
    }

    static func text(_ selector: Scenario.Selector) -> String {
        switch selector {
        case .leader: "the leader"
        case .followers: "the followers"
        case .anyFollower: "a follower"
        case .number(let number): "n\(number)"
        case .all: "all"
        case .rest: "the rest"
        case .down: "those that are down"
        case .majority(let withLeader): "a majority \(withLeader ? "with" : "without") the leader"
        case .minority(let withLeader): "a minority \(withLeader ? "with" : "without") the leader"
        case .picked(let name): name
        }
    }

    /// "waits until ..."
    static func text(_ condition: Scenario.Condition, _ names: (Scenario.Selector) -> String) -> String {
        switch condition {
        case .leader: "there is a leader"
        case .anotherLeader: "there is another leader"
        case .noLeader: "nobody leads"
        case .leads(let nodes): "\(names(nodes)) leads"
        case .follows(let nodes): "\(names(nodes)) follows the leader"
        case .down(let nodes): "\(names(nodes)) is down"
        case .up(let nodes): "\(names(nodes)) is up"
        case .caughtUp(let nodes): "\(names(nodes)) has caught up"
        case .writesSucceed: "writes succeed"
        case .writesFail: "writes fail"
        case .writes(let count): "\(ScenarioText.count(count)) writes were acknowledged"
        case .snapshotInstalled: "a snapshot was installed"
        }
    }
}
