import Base
@testable import Store

/// All revisions ever written, in the simplest form: the oracle, and the hub's history.
final class WatchModel: WatchHistorySource {
    enum Write {
        case put(String, String)
        case delete(String)
    }
    private struct State {
        var create: Int64
        var version: Int64
        var kv: [UInt8]
    }

    /// `revisions[i]` holds the events of revision `firstRevision + i`.
    private(set) var revisions: [[StoreEvent]] = []
    private var states: [[Key: State]] = [[:]]
    var compactRevision: Int64 = -1
    /// Whether `events` returns keys that nobody asked for, as it may.
    var returnsTooMuch = false
    private(set) var historyCalls = 0

    var current: Revision { Revision(1 + Int64(revisions.count)) }
    func events(of revision: Int64) -> [StoreEvent] { revisions[Int(revision) - 2] }

    /// One transaction. Deletes of absent keys change nothing; nil when nothing changed at all.
    @discardableResult
    func write(_ writes: [Write]) -> [StoreEvent]? {
        let revision = current.next
        var state = states[states.count - 1]
        var events: [StoreEvent] = []
        for write in writes {
            let change = ChangeID(main: revision, sub: Int64(events.count))
            switch write {
            case .put(let name, let value):
                let key = Key(name)
                let old = state[key]
                let create = old?.create ?? revision.rawValue
                let version = (old?.version ?? 0) + 1
                let kv = encodedKV(key, create: create, mod: revision.rawValue, version: version, value: Array(value.utf8))
                state[key] = State(create: create, version: version, kv: kv)
                events.append(StoreEvent(kind: .put, key: key, change: change, kv: kv, isCreate: create == revision.rawValue))
            case .delete(let name):
                let key = Key(name)
                guard state.removeValue(forKey: key) != nil else { continue }
                let kv = encodedKV(key, create: 0, mod: revision.rawValue, version: 0, value: [])
                events.append(StoreEvent(kind: .delete, key: key, change: change, kv: kv, isCreate: false))
            }
        }
        if events.isEmpty { return nil }
        revisions.append(events)
        states.append(state)
        return events
    }

    func value(of key: Key, at revision: Int64) -> [UInt8]? {
        revision < 1 ? nil : states[Int(revision) - 1][key]?.kv
    }

    // MARK: WatchHistorySource

    func events(
        in ranges: [KeyRange], from: Revision, through: Revision, limits: WatchHistoryLimits
    ) throws(ServiceError) -> WatchHistorySlice {
        historyCalls += 1
        precondition(from.rawValue >= compactRevision && from <= through && through <= current)
        var slice = WatchHistorySlice(events: [], through: from)
        var found = 0, bytes = 0
        for revision in from.rawValue...through.rawValue {
            let wanted = revision < 2 ? [] : events(of: revision).filter { event in
                returnsTooMuch || ranges.contains { $0.contains(event.key) }
            }
            slice.events += wanted
            slice.through = Revision(revision)
            if !wanted.isEmpty { found += 1 }
            bytes += wanted.reduce(0) { $0 + $1.kv.count }
            if found >= limits.revisions || bytes >= limits.bytes { break }
        }
        return slice
    }

    func previous(of key: Key, before: Revision) throws(ServiceError) -> [UInt8]? {
        precondition(before.rawValue - 1 >= compactRevision)
        return value(of: key, at: before.rawValue - 1)
    }
}

func encodedKV(_ key: Key, create: Int64, mod: Int64, version: Int64, value: [UInt8]) -> [UInt8] {
    var writer = ByteWriter()
    writer.writeField(1, key.bytes)
    writer.writeField(2, create)
    writer.writeField(3, mod)
    writer.writeField(4, version)
    writer.writeField(5, value)
    return writer.bytes
}

/// The mod_revision inside an encoded key-value.
func modRevision(_ kv: [UInt8]) -> Int64 {
    kv.withUnsafeBytes { raw in
        var reader = ByteReader(raw)
        while let (field, type) = try! reader.readTag() {
            if field == 3 { return Int64(bitPattern: try! reader.readVarint()) }
            try! reader.skip(type)
        }
        return 0
    }
}

/// A hub on top of a model, driven step by step.
final class WatchBench {
    let model = WatchModel()
    let hub: WatchHub
    var outputs: [WatchOutput] = []

    init(limits: WatchLimits = WatchLimits(), progressInterval: TimeSpan = .seconds(600)) {
        hub = WatchHub(limits: limits, progressInterval: progressInterval, generator: SeededGenerator(seed: 1))
    }

    func open(_ stream: UInt64, fragmentBytes: Int = 2_097_152, at now: Instant = .zero) {
        hub.openStream(WatchStreamID(stream), fragmentBytes: fragmentBytes, at: now)
    }
    @discardableResult
    func put(_ key: String, _ value: String = "v") -> Revision { write([.put(key, value)]) }
    @discardableResult
    func delete(_ key: String) -> Revision { write([.delete(key)]) }
    @discardableResult
    func write(_ writes: [WatchModel.Write]) -> Revision {
        if let events = model.write(writes) { try! hub.publish(model.current, events, history: model, into: &outputs) }
        return model.current
    }
    func create(_ stream: UInt64, _ key: String, _ end: String = "", start: Int64 = 0, id: Int64 = 0, notify: Bool = false,
                filters: WatchFilters = [], previous: Bool = false, fragment: Bool = false, refusal: WatchRefusal? = nil) {
        let request = WatchCreateRequest(
            key: Array(key.utf8), rangeEnd: Array(end.utf8), startRevision: Revision(start), progressNotify: notify,
            filters: filters, previousKV: previous, watchID: WatchID(id), fragment: fragment)
        hub.create(WatchStreamID(stream), request, refusal: refusal, into: &outputs)
    }
    func cancel(_ stream: UInt64, _ id: Int64) { hub.cancel(WatchStreamID(stream), WatchID(id), into: &outputs) }
    func progress(_ stream: UInt64) { hub.progress(WatchStreamID(stream), into: &outputs) }
    func tick(_ now: Instant) { hub.tick(now, into: &outputs) }
    @discardableResult
    func catchUp(_ budget: WatchCatchUpBudget = WatchCatchUpBudget()) -> Bool {
        try! hub.catchUp(budget, history: model, into: &outputs)
    }
    func catchUpFully() { while catchUp() {} }
    func compact(_ revision: Int64) {
        model.compactRevision = revision
        hub.compacted(Revision(revision), into: &outputs)
    }
    /// Everything since the last call.
    func take() -> [WatchResponse] {
        defer { outputs = [] }
        return outputs.map(\.response)
    }
    /// The same as short texts, "id@header: ...".
    func log() -> [String] { take().map(describe) }
}

/// "0@20 created", "-1@20 created canceled(reason)", "3@21 put 21, delete 21", "5@0 canceled compacted 7".
func describe(_ response: WatchResponse) -> String {
    var parts: [String] = []
    if response.created { parts.append("created") }
    if response.canceled { parts.append(response.cancelReason.isEmpty ? "canceled" : "canceled(\(response.cancelReason))") }
    if response.compactRevision != .zero { parts.append("compacted \(response.compactRevision.rawValue)") }
    let events = response.events.map { "\($0.isDelete ? "delete" : "put") \(modRevision($0.kv))" }
    if !events.isEmpty { parts.append(events.joined(separator: ", ")) }
    if response.fragment { parts.append("fragment") }
    return "\(response.watchID.rawValue)@\(response.headerRevision.rawValue)" + (parts.isEmpty ? "" : " " + parts.joined(separator: " "))
}
