import Base
import Client
import Simulation
import Synchronization

/// Foundation has an `Operation` too.
typealias ClientOperation = Operation

/// What all clients of a run did and saw.
final class HistoryRecorder: Sendable {
    private let recorded = Mutex<[ClientOperation]>([])
    private let watches = Mutex<[OpenWatch]>([])
    private let nextClient = Atomic<Int>(1)
    private let oddities = Mutex<[Violation]>([])

    func newClient() -> Int { nextClient.add(1, ordering: .relaxed).oldValue }
    func add(_ operation: ClientOperation) { recorded.withLock { $0.append(operation) } }
    func add(_ watch: OpenWatch) { watches.withLock { $0.append(watch) } }
    /// Something that no server or client may do, seen at once.
    func report(_ violation: Violation) { oddities.withLock { $0.append(violation) } }

    /// In the order of their starts.
    var operations: [ClientOperation] { recorded.withLock { $0 }.sorted { $0.start < $1.start } }
    var records: [WatchRecord] { watches.withLock { $0 }.map(\.record) }
    var reports: [Violation] { oddities.withLock { $0 } }
}

/// A record that is still being written.
final class OpenWatch: Sendable {
    private let state: Mutex<WatchRecord>
    /// Every key, no filter, with the versions before: the truth can be read from it.
    let isComplete: Bool

    init(_ record: WatchRecord, isComplete: Bool) {
        state = Mutex(record)
        self.isComplete = isComplete
    }

    var record: WatchRecord { state.withLock { $0 } }
    func add(_ message: WatchRecord.Message, at moment: Moment) { state.withLock { $0.messages.append((moment, message)) } }
    func close(at moment: Moment) { state.withLock { $0.closedAt = moment } }
}

extension SeenKeyValue {
    init(_ kv: KeyValue) {
        self.init(key: kv.key, value: kv.value, createRevision: kv.createRevision.rawValue, modRevision: kv.modRevision.rawValue, version: kv.version,
                  lease: kv.lease.rawValue)
    }
}

extension WatchRecord.Event {
    init(_ event: WatchEvent) {
        self.init(isDelete: event.kind == .delete, kv: SeenKeyValue(event.kv), previous: event.previous.map { SeenKeyValue($0) })
    }
}
