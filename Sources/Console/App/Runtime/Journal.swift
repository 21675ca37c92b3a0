import Synchronization
import UI

/// A line in the log for everything that the person changes: what it was, how it ended, and the etcdctl line that does the same.
final class Journal: Sendable {
    private struct Entry {
        var title: String
        var etcdctl: String?
    }

    private let pending = Mutex<[RequestID: Entry]>([:])
    private let funnel: LogFunnel

    init(_ funnel: LogFunnel) { self.funnel = funnel }

    func began(_ command: Command) {
        guard let (id, title) = Journal.title(command) else { return }
        pending.withLock { $0[id] = Entry(title: title, etcdctl: EtcdctlText.line(command)) }
    }

    func ended(_ id: RequestID, _ outcome: CommandResult.Outcome, microseconds: Int, removedCount: Int64) {
        guard let entry = pending.withLock({ $0.removeValue(forKey: id) }) else { return }
        var level = LogLine.Level.info
        var facts: [String] = []
        switch outcome {
        case .done(let revision, let detail):
            if let detail { facts.append(detail) }
            if removedCount > 1 { facts.append("\(removedCount) keys") }
            if let revision { facts.append("rev \(revision)") }
        case .conflict:
            level = .warning
            facts.append("refused: changed meanwhile")
        case .failed(let message):
            level = .error
            facts.append("failed: \(message)")
        }
        facts.append("\(microseconds / 1_000) ms")
        let call = entry.etcdctl.map { " · \($0)" } ?? ""
        funnel.add(LogLine(at: Clock.now(), node: 0, level: level, part: "journal", text: "\(entry.title): \(facts.joined(separator: ", "))\(call)"))
    }

    private static func title(_ command: Command) -> (RequestID, String)? {
        switch command {
        case .put(let id, _, _, _, _): (id, "put")
        case .delete(let id, _, _): (id, "delete")
        case .rename(let id, _, _, _, _, _): (id, "rename")
        case .deleteKeys(let id, let keys): (id, "delete \(keys.count) keys")
        case .deletePrefix(let id, _, _): (id, "delete prefix")
        case .restore(let id, let keys): (id, "restore \(keys.count) keys")
        case .addFault(let id, _, _): (id, "fault")
        case .healFault(let id, _), .healAllFaults(let id): (id, "heal")
        case .restartNode(let id, _): (id, "restart")
        case .transferLeadership(let id, _): (id, "move leader")
        case .setWorkload(let id, let settings): (id, settings == nil ? "workload off" : "workload on")
        default: nil
        }
    }
}
