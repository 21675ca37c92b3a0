import Base
import GRPC
import Logging
import NIOConcurrencyHelpers
import NIOCore
import Wire

/// What to watch.
public struct WatchQuery: Hashable, Sendable {
    public var range: KeyRange
    /// The first revision to report; `.zero`: what happens from now on.
    public var startRevision: Revision = .zero
    /// Report the version before each change, where it is still there.
    public var wantsPrevious = false
    /// Leave out puts, or deletions.
    public var skipsPuts = false
    public var skipsDeletes = false
    /// Report from time to time how far the server has got, also without changes.
    public var wantsProgress = false
    public init(_ range: KeyRange, startRevision: Revision = .zero, wantsPrevious: Bool = false, wantsProgress: Bool = false) {
        self.range = range
        self.startRevision = startRevision
        self.wantsPrevious = wantsPrevious
        self.wantsProgress = wantsProgress
    }
}

public struct WatchEvent: Hashable, Sendable {
    public enum Kind: Hashable, Sendable { case put, delete }
    public var kind: Kind
    /// Of a deletion only key and modRevision are set.
    public var kv: KeyValue
    public var previous: KeyValue?
    /// A put of a key that did not exist.
    public var isCreation: Bool { kind == .put && kv.createRevision == kv.modRevision }
}

/// What one message of the server brought.
public struct WatchBatch: Hashable, Sendable {
    public var header: ResponseHeader
    /// In the order of their revisions; all events of one revision are in one batch. Empty: a progress report, meaning that
    /// everything up to `header.revision` has been seen.
    public var events: [WatchEvent]
    public var isProgress: Bool { events.isEmpty }
}

/// The changes of a range of keys, each exactly once and in order, for as long as somebody reads.
///
/// Survives broken connections and failing members: it goes on elsewhere after the last revision seen. It ends with
/// `EtcdError.compacted` when the revisions it needs are gone, with `.watchCanceled` or `.service` when the server refuses
/// it, and without error after `cancel`. A slow reader makes the server wait. One reader at a time.
public struct WatchStream: AsyncSequence, Sendable {
    public typealias Element = WatchBatch
    fileprivate let handle: Handle

    /// Ends the watch when the last copy of the stream and of its iterators is gone.
    fileprivate final class Handle: Sendable {
        let buffer: StreamBuffer<WatchBatch>
        let watcher: Watcher
        init(buffer: StreamBuffer<WatchBatch>, watcher: Watcher) {
            self.buffer = buffer
            self.watcher = watcher
        }
        deinit { buffer.abandon() }
    }

    public func makeAsyncIterator() -> Iterator { Iterator(handle: handle) }

    public struct Iterator: AsyncIteratorProtocol, Sendable {
        fileprivate let handle: Handle
        public mutating func next() async throws -> WatchBatch? { try await handle.buffer.next() }
    }

    /// Ends the watch; a waiting reader gets nil.
    public func cancel() {
        handle.buffer.finish()
        let watcher = handle.watcher
        watcher.core.loop.execute { watcher.stop() }
    }

    /// Waits until a server has taken the watch: changes from then on will be reported. Returns the revision at which that was.
    public func started() async throws -> Revision { try await handle.watcher.started.wait() }

    /// Asks the server to report its progress soon (a batch without events). Servers skip it while they are catching up.
    public func requestProgress() {
        let watcher = handle.watcher
        watcher.core.loop.execute { watcher.requestProgress() }
    }
}

extension EtcdClient {
    /// Watches from `query.startRevision` on. Returns at once; connecting and reconnecting go on in the background.
    public func watch(_ query: WatchQuery, options: CallOptions = CallOptions()) -> WatchStream {
        let watcher = Watcher(core: core, query: query, options: options)
        let loop = core.loop
        loop.execute { watcher.start() }
        return WatchStream(handle: WatchStream.Handle(buffer: watcher.buffer, watcher: watcher))
    }

    public func watch(prefix: String, startRevision: Revision = .zero, wantsPrevious: Bool = false) -> WatchStream {
        watch(WatchQuery(.prefix(Key(prefix)), startRevision: startRevision, wantsPrevious: wantsPrevious))
    }
}

/// One watch with its stream of its own, so that one slow reader stops no other: streams of a connection are cheap, and
/// each has its own window. Confined to the client's loop, apart from `buffer` and `started`.
final class Watcher: @unchecked Sendable {
    // Sendable because tasks touch only constants that are Sendable themselves.
    let core: ClientCore
    let started = OneShot<Revision>()
    private(set) var buffer: StreamBuffer<WatchBatch>!
    private let query: WatchQuery
    private let options: CallOptions
    /// The first revision that has not been reported; zero until the server has named one.
    private var nextRevision: Revision
    private var call: StreamCall?
    private var retry: Scheduled<Void>?
    private var failures = 0
    private var watchID: Int64 = 0
    /// Events of an answer whose last piece has not come.
    private var pieces: [WatchEvent] = []
    private var isStopped = false

    init(core: ClientCore, query: WatchQuery, options: CallOptions) {
        self.core = core
        self.query = query
        var options = options
        options.timeout = nil
        self.options = options
        nextRevision = query.startRevision
        buffer = StreamBuffer(
            limit: core.configuration.watchBufferBytes,
            onRoom: { [weak self, loop = core.loop] in loop.execute { [weak self] in self?.call?.resume() } },
            onAbandoned: { [weak self, loop = core.loop] in loop.execute { [weak self] in self?.stop() } })
    }

    func start() {
        guard !isStopped else { return }
        guard !core.isClosed else { return fail(.closed) }
        let call = StreamCall(core: core, .watch, options)
        self.call = call
        pieces.removeAll()
        call.onOpen = { [unowned self] in $0.send(encodedCreate()) }
        call.onMessage = { [unowned self] in received($0) }
        // Strong: the watcher lives as long as its call, even if the reader only holds an iterator.
        call.onEnd = { [self] in ended($0) }
        call.start()
    }

    func stop() {
        guard !isStopped else { return }
        isStopped = true
        retry?.cancel()
        call?.cancel()
        call = nil
        buffer.finish()
        started.fail(CancellationError())
    }

    func requestProgress() {
        var writer = ByteWriter()
        writer.writeMessage(3) { _ in }
        call?.send(writer.bytes)
    }

    private func fail(_ error: EtcdError) {
        guard !isStopped else { return }
        isStopped = true
        retry?.cancel()
        let call = self.call
        self.call = nil
        call?.cancel()
        buffer.finish(error)
        started.fail(error)
    }

    private func ended(_ error: EtcdError?) {
        call = nil
        guard !isStopped else { return }
        switch error {
        case .closed, .configuration: return fail(error!)
        case .service(let service):
            if core.wantsNewToken(service) { return tryAgain(forgetting: true) }
            // Everything but these two is an answer, not an accident. (etcd's client halts on the same ones)
            guard service.code == .unavailable || service.code == .internal else { return fail(.service(service)) }
        default: break
        }
        if options.endpoint != nil, case .transport? = error, !started.isDone { return fail(error!) }
        core.configuration.logger.debug("watch interrupted", metadata: ["reason": "\(error.map(\.description) ?? "stream ended")"])
        tryAgain(forgetting: false)
    }

    private func tryAgain(forgetting: Bool, token: MetadataField? = nil) {
        failures += 1
        if forgetting {
            // More than one refusal of a fresh token is an answer.
            guard failures <= 3 else { return fail(.service(.invalidAuthToken)) }
            core.discardToken(token ?? lastToken)
        }
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        retry = core.loop.scheduleTask(in: failures == 1 ? .zero : core.backoff(attempt: failures - 2)) { bound.value.start() }
    }

    private var lastToken: MetadataField?

    private func encodedCreate() -> [UInt8] {
        lastToken = call?.usedToken
        var writer = ByteWriter(capacity: 64)
        writer.writeMessage(1) { w in
            w.writeRange(query.range)
            w.writeField(3, nextRevision.rawValue)
            w.writeField(4, query.wantsProgress)
            // A repeated enum is packed.
            var filters: [UInt8] = []
            if query.skipsPuts { filters.append(0) }
            if query.skipsDeletes { filters.append(1) }
            w.writeField(5, filters)
            w.writeField(6, query.wantsPrevious)
            w.writeField(8, true)
        }
        return writer.bytes
    }

    /// A server may name the very last revision.
    private static func after(_ revision: Revision) -> Revision { revision.rawValue == .max ? revision : revision.next }

    /// A message of any server. Internal for tests.
    func received(_ message: UnsafeRawBufferPointer) {
        var reader = ByteReader(message)
        let answer: WatchAnswer
        do {
            answer = try WatchAnswer.decode(&reader)
        } catch {
            return fail(.malformedResponse("watch: \(error)"))
        }
        if answer.created { return created(answer) }
        if answer.canceled { return canceled(answer) }
        deliver(answer, bytes: message.count)
    }

    private func created(_ answer: WatchAnswer) {
        if answer.canceled { return refused(answer) }
        watchID = answer.watchID
        failures = 0
        // From now on means: after the revision at which the server took the watch, also on the next connection.
        if nextRevision == .zero { nextRevision = Watcher.after(answer.header.revision) }
        started.succeed(answer.header.revision)
    }

    private func canceled(_ answer: WatchAnswer) {
        if answer.compactRevision != .zero { return fail(.compacted(answer.compactRevision)) }
        refused(answer)
    }

    private func refused(_ answer: WatchAnswer) {
        if answer.compactRevision != .zero { return fail(.compacted(answer.compactRevision)) }
        if let error = Watcher.serviceError(in: answer.reason) {
            if core.wantsNewToken(error) {
                call?.cancel()
                call = nil
                return tryAgain(forgetting: true)
            }
            return fail(.service(error))
        }
        fail(.watchCanceled(answer.reason))
    }

    /// etcd puts some errors into the reason as "rpc error: code = PermissionDenied desc = ...".
    static func serviceError(in reason: String) -> ServiceError? {
        if reason == ServiceError.compacted.message { return .compacted }
        guard let code = reason.firstRange(of: "code = "), let text = reason.firstRange(of: " desc = "), code.upperBound <= text.lowerBound else {
            return nil
        }
        let name = reason[code.upperBound..<text.lowerBound]
        guard let status = StatusCode.allCases.first(where: { $0.metricName == name }) else { return nil }
        return ServiceError(status, String(reason[text.upperBound...]))
    }

    private func deliver(_ answer: WatchAnswer, bytes: Int) {
        var events = answer.events
        if !pieces.isEmpty {
            pieces.append(contentsOf: events)
            events = pieces
        }
        if answer.isFragment {
            pieces = events
            return
        }
        if !pieces.isEmpty { pieces = [] }
        if events.isEmpty {
            // Progress: nothing up to here is missing, so a new connection can begin later.
            guard answer.header.revision != .zero else { return }
            if nextRevision <= answer.header.revision { nextRevision = Watcher.after(answer.header.revision) }
        } else {
            // A server may only send what was asked for; a repeated event would break the promise made to the reader.
            if let first = events.first, first.kv.modRevision < nextRevision {
                core.configuration.logger.warning("watch told of a revision again", metadata: [
                    "revision": "\(first.kv.modRevision.rawValue)", "expected": "\(nextRevision.rawValue)", "endpoint": "\(call?.endpoint?.text ?? "")",
                ])
                events.removeAll { $0.kv.modRevision < nextRevision }
                if events.isEmpty { return }
            }
            nextRevision = Watcher.after(events[events.count - 1].kv.modRevision)
        }
        if buffer.push(WatchBatch(header: answer.header, events: events), cost: bytes + 64) { call?.pause() }
    }
}

/// A WatchResponse.
struct WatchAnswer {
    var header = ResponseHeader()
    var watchID: Int64 = 0
    var created = false
    var canceled = false
    var compactRevision = Revision.zero
    var reason = ""
    var isFragment = false
    var events: [WatchEvent] = []

    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> WatchAnswer {
        var answer = WatchAnswer()
        try reader.readFields { (r, field, type) throws(DecodingFault) in
            switch (field, type) {
            case (1, .lengthDelimited):
                var nested = try r.readMessage()
                answer.header = try ResponseHeader.decode(&nested)
            case (2, .varint): answer.watchID = try r.readInt64()
            case (3, .varint): answer.created = try r.readVarint() != 0
            case (4, .varint): answer.canceled = try r.readVarint() != 0
            case (5, .varint): answer.compactRevision = Revision(try r.readInt64())
            case (6, .lengthDelimited): answer.reason = String(decoding: try r.readCountedSlice(), as: UTF8.self)
            case (7, .varint): answer.isFragment = try r.readVarint() != 0
            case (11, .lengthDelimited):
                var nested = try r.readMessage()
                answer.events.append(try WatchEvent.decode(&nested))
            default: return false
            }
            return true
        }
        return answer
    }
}

extension WatchEvent {
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> WatchEvent {
        var event = WatchEvent(kind: .put, kv: KeyValue(), previous: nil)
        try reader.readFields { (r, field, type) throws(DecodingFault) in
            switch (field, type) {
            case (1, .varint): event.kind = try r.readVarint() == 0 ? .put : .delete
            case (2, .lengthDelimited):
                var nested = try r.readMessage()
                event.kv = try KeyValue.decode(&nested)
            case (3, .lengthDelimited):
                var nested = try r.readMessage()
                event.previous = try KeyValue.decode(&nested)
            default: return false
            }
            return true
        }
        return event
    }
}

/// A value that comes once and that any number of tasks wait for.
final class OneShot<Value: Sendable>: Sendable {
    private struct State {
        var result: Result<Value, any Error>?
        var waiters: [Int: CheckedContinuation<Value, any Error>] = [:]
        var nextWaiter = 0
    }
    private let state = NIOLockedValueBox(State())

    func succeed(_ value: Value) { resolve(.success(value)) }
    func fail(_ error: any Error) { resolve(.failure(error)) }
    var isDone: Bool { state.withLockedValue { $0.result != nil } }

    /// The first result stays.
    private func resolve(_ result: Result<Value, any Error>) {
        let waiters = state.withLockedValue { state -> [Int: CheckedContinuation<Value, any Error>] in
            guard state.result == nil else { return [:] }
            state.result = result
            defer { state.waiters = [:] }
            return state.waiters
        }
        for waiter in waiters.values { waiter.resume(with: result) }
    }

    func wait() async throws -> Value {
        let number = state.withLockedValue { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let result: Result<Value, any Error>? = state.withLockedValue { state in
                    if state.result == nil {
                        if Task.isCancelled { return .failure(CancellationError()) }
                        state.waiters[number] = continuation
                    }
                    return state.result
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            let waiter = state.withLockedValue { $0.waiters.removeValue(forKey: number) }
            waiter?.resume(throwing: CancellationError())
        }
    }
}
