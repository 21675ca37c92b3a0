import Auth
import Base
import Dispatch
import Foundation
import GRPC
import Logging
import NIOCore
import NIOEmbedded
import NIOPosix
@testable import Replica
@testable import Server
import Store
import Synchronization
import Wire

// The client port without sockets: bytes go through a listener's own handlers to a member that serves at once; and calls of every method, whose
// answers are read as well.

extension FuzzTargets {
    static let clientPort: [FuzzTarget] = [
        FuzzTarget(name: "client-port", seeds: ClientPortImages.byteSeeds,
                   words: ["GET ", " HTTP/1.1\r\n", "\r\n\r\n", "/health?serializable=true", "/livez/", "/readyz?exclude=", "verbose", "Transfer-Encoding: chunked\r\n", "Content-Length: ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
                   run: ClientPortImages.feed),
        FuzzTarget(name: "api-calls", seeds: ClientPortImages.callSeeds, run: ClientPortImages.call),
    ]
}

private enum ClientPortImages {
    private static func message(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter()
        body(&writer)
        return writer.bytes
    }
    private static func put(_ key: String, _ value: String, lease: Int64 = 0) -> [UInt8] {
        message { PutRequest(key: Array(key.utf8), value: Array(value.utf8), lease: LeaseID(lease)).encode(into: &$0) }
    }
    private static func range(_ key: String, _ end: [UInt8] = []) -> [UInt8] { message { RangeRequest(key: Array(key.utf8), rangeEnd: end).encode(into: &$0) } }
    private static func numbers(_ numbers: Int64...) -> [UInt8] { message { writer in for (at, number) in numbers.enumerated() { writer.writeField(UInt32(at + 1), number) } } }
    private static func names(_ names: String...) -> [UInt8] { message { writer in for (at, name) in names.enumerated() { writer.writeField(UInt32(at + 1), Array(name.utf8)) } } }

    private static func made<Message: ProtobufMessage>(_: Message.Type, _ fill: (inout Message) -> Void) -> Message {
        var message = Message()
        fill(&message)
        return message
    }

    // MARK: Bytes

    static func byteSeeds() -> [[UInt8]] {
        let requests: [String] = [
            "GET /version HTTP/1.1\r\nHost: x\r\n\r\n", "GET /health?serializable=true&exclude=NOSPACE HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /readyz?verbose&exclude=non_learner HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /livez/%73erializable_read HTTP/1.0\r\n\r\n",
            "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n3\r\n1}\n\r\n0\r\n\r\n", "PUT /health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcdOPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        ]
        let http: [[UInt8]] = requests.flatMap { request -> [[UInt8]] in [[0] + Array(request.utf8), [7] + Array(request.utf8)] }
        let client = SilentClient()
        for (method, request) in [(MethodID.put, put("a", "1")), (.range, range("a")), (.leaseGrant, numbers(60, 7)), (.status, []), (.memberList, numbers(1)), (.userList, [])] {
            guard let stream = client.session.startCall(path: Array(method.path.utf8), metadata: [MetadataField("hasleader", "true"), MetadataField("token", "x.1")], timeout: .seconds(5)) else { continue }
            client.session.sendMessage(stream, request)
            client.session.halfClose(stream)
        }
        for (method, request) in [(MethodID.watch, message { WatchRequest.create(WatchCreateRequest(key: [0x61], progressNotify: true)).encode(into: &$0) }), (.leaseKeepAlive, numbers(7))] {
            if let stream = client.session.startCall(path: Array(method.path.utf8)) { client.session.sendMessage(stream, request) }
        }
        client.session.ping(4)
        let calls = (try? client.takeOutput()) ?? []
        var seeds: [[UInt8]] = http
        for cut in [0, 9, 40] as [UInt8] { seeds.append([cut] + calls) }
        seeds.append([0] + calls + calls)
        return seeds
    }

    static func feed(_ raw: UnsafeRawBufferPointer) {
        guard let cut = raw.first else { return }
        let port = ClientPort()
        var rest = Array(raw.dropFirst())[...]
        while !rest.isEmpty, port.isOpen {
            let part = Array(rest.prefix(cut == 0 ? rest.count : Int(cut)))
            rest = rest.dropFirst(part.count)
            port.feed(part)
            _ = port.takeOutput()
        }
        port.pass(.seconds(6))
        port.close()
    }

    // MARK: Calls

    private struct Step {
        static let hasToken: UInt8 = 1, hasGarbageToken: UInt8 = 2, requiresLeader: UInt8 = 4, isHurried: UInt8 = 8, staysOpen: UInt8 = 16, passesTime: UInt8 = 32
    }

    private static func step(_ method: MethodID, _ request: [UInt8], _ flags: UInt8 = 0) -> [UInt8] { [UInt8(method.rawValue), flags] + piece(request) }

    static func callSeeds() -> [[UInt8]] {
        let lease = made(PBLeaseKeepAliveRequest.self) { $0.id = 7 }.encoded()
        let txn = message {
            TxnRequest(compare: [Compare(key: [0x61], target: .version, result: .equal, operand: .version(1))], success: [.put(PutRequest(key: [0x61], value: [0x32]))],
                       failure: [.range(RangeRequest(key: [0x61]))]).encode(into: &$0)
        }
        let keys = [step(.put, put("a", "1")), step(.range, range("a", [0]), Step.requiresLeader), step(.txn, txn), step(.deleteRange, message { DeleteRangeRequest(key: [0x61], prevKV: true).encode(into: &$0) }),
                    step(.compact, message { CompactionRequest(revision: Revision(2), physical: true).encode(into: &$0) }), step(.hashKV, numbers(2)), step(.hash, [])]
        let leases = [step(.leaseGrant, numbers(60, 7)), step(.put, put("b", "1", lease: 7)), step(.leaseKeepAlive, lease, Step.staysOpen), step(.leaseKeepAlive, lease), step(.leaseTimeToLive, numbers(7, 1)),
                      step(.leaseLeases, []), step(.leaseRevoke, numbers(7), Step.passesTime)]
        let cluster = [step(.memberList, numbers(1)), step(.memberAdd, made(PBMemberAddRequest.self) { $0.peerUrls = ["http://127.0.0.1:7"]; $0.isLearner = true }.encoded()),
                       step(.memberUpdate, made(PBMemberUpdateRequest.self) { $0.id = 0xa1; $0.peerUrls = ["http://p:1"] }.encoded()), step(.memberPromote, numbers(9)), step(.memberRemove, numbers(9)),
                       step(.memberRemove, numbers(0xa1))]
        let maintenance = [step(.status, []), step(.alarm, numbers(1, 0xa1, 1)), step(.put, put("a", "1")), step(.alarm, numbers(2, 0xa1, 1)), step(.alarm, []), step(.defragment, []), step(.moveLeader, numbers(9)),
                           step(.snapshot, []), step(.downgrade, []), step(.healthCheck, []), step(.healthList, []), step(.healthWatch, [], Step.staysOpen), step(.observeMember, [], Step.staysOpen), step(.lock, names("x")),
                           step(.campaign, names("x"))]
        let user = made(PBAuthUserAddRequest.self) { $0.name = "u"; $0.options.noPassword = true }.encoded()
        let grant = made(PBAuthRoleGrantPermissionRequest.self) { $0.name = "r"; $0.perm.permType = .readwrite; $0.perm.key = .init([0x61]); $0.perm.rangeEnd = .init([0x62]) }.encoded()
        let revoke = made(PBAuthRoleRevokePermissionRequest.self) { $0.role = "r"; $0.key = .init([0x61]); $0.rangeEnd = .init([0x62]) }.encoded()
        let auth = [step(.userAdd, names("root", "pw")), step(.userAdd, user), step(.roleAdd, names("root")), step(.roleAdd, names("r")), step(.roleGrantPermission, grant), step(.userGrantRole, names("root", "root")),
                    step(.userGrantRole, names("u", "r")), step(.userChangePassword, names("u", "pw2")), step(.authEnable, []), step(.authenticate, names("root", "pw")), step(.authenticate, names("root", "no"))]
        let authorised = [step(.authStatus, [], Step.hasToken), step(.put, put("a", "1"), Step.hasToken), step(.put, put("a", "1")), step(.range, range("a"), Step.hasGarbageToken), step(.userGet, names("u"), Step.hasToken),
                          step(.roleGet, names("r"), Step.hasToken), step(.userList, [], Step.hasToken), step(.roleList, [], Step.hasToken), step(.userRevokeRole, names("u", "r"), Step.hasToken),
                          step(.roleRevokePermission, revoke, Step.hasToken), step(.roleDelete, names("r"), Step.hasToken), step(.userDelete, names("u"), Step.hasToken), step(.authDisable, [], Step.hasToken)]
        let watch = [step(.watch, message { WatchRequest.create(WatchCreateRequest(key: [0x61], rangeEnd: [0], startRevision: Revision(1), progressNotify: true, previousKV: true, watchID: WatchID(3), fragment: true)).encode(into: &$0) }, Step.staysOpen),
                     step(.put, put("a", "1")), step(.put, put("a", "2"), Step.passesTime)]
        let stories: [[[UInt8]]] = [keys, leases, cluster, maintenance, auth, auth + authorised, watch]
        // The threads for passwords and long reads begin here, and with them the allocator's room for each: no input takes that for itself.
        for story in [keys, auth] { Array(story.joined()).withUnsafeBytes { call($0) } }
        return stories.map { Array($0.joined()) } + auth + keys
    }

    /// What must be able to read each answer.
    private static let readers: [MethodID: @Sendable (UnsafeRawBufferPointer) throws -> Void] = {
        func reader<Message: ProtobufMessage>(_: Message.Type) -> @Sendable (UnsafeRawBufferPointer) throws -> Void { { _ = try Message(decoding: $0) } }
        return [
            .range: reader(PBRangeResponse.self), .put: reader(PBPutResponse.self), .deleteRange: reader(PBDeleteRangeResponse.self), .txn: reader(PBTxnResponse.self), .compact: reader(PBCompactionResponse.self),
            .watch: reader(PBWatchResponse.self), .leaseGrant: reader(PBLeaseGrantResponse.self), .leaseRevoke: reader(PBLeaseRevokeResponse.self), .leaseKeepAlive: reader(PBLeaseKeepAliveResponse.self),
            .leaseTimeToLive: reader(PBLeaseTimeToLiveResponse.self), .leaseLeases: reader(PBLeaseLeasesResponse.self), .memberAdd: reader(PBMemberAddResponse.self), .memberRemove: reader(PBMemberRemoveResponse.self),
            .memberUpdate: reader(PBMemberUpdateResponse.self), .memberList: reader(PBMemberListResponse.self), .memberPromote: reader(PBMemberPromoteResponse.self), .alarm: reader(PBAlarmResponse.self),
            .status: reader(PBStatusResponse.self), .hash: reader(PBHashResponse.self), .hashKV: reader(PBHashKVResponse.self), .authStatus: reader(PBAuthStatusResponse.self),
            .authenticate: reader(PBAuthenticateResponse.self), .userGet: reader(PBAuthUserGetResponse.self), .userList: reader(PBAuthUserListResponse.self), .roleGet: reader(PBAuthRoleGetResponse.self),
            .roleList: reader(PBAuthRoleListResponse.self), .healthCheck: reader(PBHealthCheckResponse.self), .healthList: reader(PBHealthListResponse.self),
        ]
    }()

    static func call(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        let port = ClientPort(), client = SilentClient()
        var methods: [StreamID: MethodID] = [:], unary: [StreamID] = [], token: [UInt8] = []
        client.received = { message, stream in
            guard let method = methods[stream] else { return }
            do { try readers[method]?(message) } catch { preconditionFailure("the answer to \(method) is none: \(error)") }
            if method == .authenticate, let answer = try? PBAuthenticateResponse(decoding: message) { token = Array(answer.token.utf8) }
        }
        func exchange() {
            while true {
                let forth = (try? client.takeOutput()) ?? []
                if !forth.isEmpty { port.feed(forth) }
                let back = port.takeOutput()
                client.feed(back)
                if forth.isEmpty, back.isEmpty { return }
            }
        }
        exchange()
        var steps = 0
        while !choices.isAtEnd, steps < 32 {
            let method = MethodID(rawValue: UInt16(choices.byte()) % UInt16(MethodID.allCases.count))!
            let flags = choices.byte(), request = choices.piece()
            var metadata: [MetadataField] = []
            if flags & Step.hasToken != 0 { metadata.append(MetadataField("token", String(decoding: token, as: UTF8.self))) }
            if flags & Step.hasGarbageToken != 0 { metadata.append(MetadataField("token", "Bearer abc.5")) }
            if flags & Step.requiresLeader != 0 { metadata.append(ClientPortImages.hasLeader) }
            guard let stream = client.session.startCall(path: Array(method.path.utf8), metadata: metadata, timeout: flags & Step.isHurried != 0 ? TimeSpan(nanoseconds: 1) : nil) else { break }
            methods[stream] = method
            client.session.sendMessage(stream, request)
            let staysOpen = flags & Step.staysOpen != 0
            if staysOpen { client.session.sendMessage(stream, request) } else { client.session.halfClose(stream) }
            // Who waits for a lock or an office may wait for ever.
            if method.kind == .unary, !staysOpen, method != .lock, method != .campaign { unary.append(stream) }
            exchange()
            // Passwords and hashes have threads of their own.
            switch method {
            case .authenticate, .userAdd, .userChangePassword, .hash, .hashKV:
                port.awaitThreads()
                exchange()
            default: break
            }
            if flags & Step.passesTime != 0 {
                port.pass(.seconds(1))
                exchange()
            }
            steps += 1
        }
        port.pass(.seconds(20))
        port.awaitThreads()
        exchange()
        if port.isServing {
            for stream in unary { precondition(client.endings[stream] == 1, "call \(stream), \(methods[stream]!), was never answered") }
        }
        port.close()
        client.session.connectionClosed("end")
    }

    private static let hasLeader = MetadataField("hasleader", "true")
}

/// A listener's way from bytes to a member and back, in one thread. The member is the only one of its cluster.
final class ClientPort {
    private let turns = EmbeddedEventLoop()
    private let loop: TurnLoop
    private let member = PortMember()
    private let clients: ClientLoop
    private let channel: EmbeddedChannel
    private let acceptor: TLSAcceptor?
    /// bcrypt's least cost.
    private static let silent = Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() }
    private static let auth = try! AuthDesk(tokens: "simple", bcryptCost: 4)

    /// - Parameter tls: its files must have been read.
    init(tls: TLSPort? = nil) {
        loop = TurnLoop(turns)
        clients = ClientLoop(number: 1, eventLoop: loop, port: member, bounds: ClientBounds(), budget: AnswerBudget(limit: ClientBounds().maxTotalResponseBytes),
                             auth: ClientPort.auth, logger: ClientPort.silent)
        clients.siblings = [clients]
        member.attach(clients)
        channel = EmbeddedChannel(loop: turns)
        let rejections = RejectionLog(ClientPort.silent)
        acceptor = if let tls { TLSAcceptor(tls, loop: turns, rejections: rejections) } else { nil }
        _ = clients.adopt(channel, through: acceptor, rejections: rejections)
        channel.connect(to: try! SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
        turn()
    }

    var isOpen: Bool { channel.isActive }
    var isServing: Bool { isOpen && member.isServing }
    var handshakesUnderWay: Int { acceptor?.handshakesUnderWay ?? 0 }

    func feed(_ bytes: [UInt8]) {
        guard isOpen else { return }
        _ = try? channel.writeInbound(ByteBuffer(bytes: bytes))
        turn()
    }

    func takeOutput() -> [UInt8] {
        var bytes: [UInt8] = []
        while case .byteBuffer(let buffer)? = try? channel.readOutbound(as: IOData.self) { bytes += buffer.readableBytesView }
        return bytes
    }

    /// Everything that is due now.
    func turn() {
        repeat { turns.run() } while loop.turn()
    }

    func pass(_ span: TimeSpan) {
        member.pass(span)
        turn()
    }

    /// The connection's own timers, not the member's.
    func wait(_ span: TimeAmount) {
        turns.advanceTime(by: span)
        turn()
    }

    /// What was handed to the threads for passwords and long reads has come back.
    func awaitThreads() {
        let done = DispatchSemaphore(value: 0), both = DispatchSemaphore(value: 0)
        try! PasswordThread.run { done.signal() }
        done.wait()
        // Two threads: when each is in one of these, neither is in anything else.
        for _ in 0..<2 {
            LongReads.run {
                done.signal()
                both.wait()
            }
        }
        for _ in 0..<2 { done.wait() }
        for _ in 0..<2 { both.signal() }
        turn()
    }

    func close() {
        channel.close(promise: nil)
        // TLS waits for the other side's farewell.
        wait(.seconds(2))
        _ = try? channel.finish(acceptAlreadyClosed: true)
        clients.retire()
        turn()
        try? turns.syncShutdownGracefully()
    }
}

/// A member that client connections see, answering in the same thread.
private final class PortMember: ReplicaPort, @unchecked Sendable {
    // @unchecked: used in one thread only, but for `metrics`.
    let identity = NodeIdentity(cluster: ClusterID(0xc1), member: StoreImage.member, name: "n1", options: ReplicaOptions())
    let metrics = NodeMetrics()
    private let member = SoleMember()
    private var loop: (any ClientLoopPort)?

    var isServing: Bool { member.replica.map { !$0.isHalted } ?? false }
    var published: ReplicaStatus? { member.replica?.status() }
    func attach(_ loop: any ClientLoopPort) { self.loop = loop }
    func detach(_ loop: any ClientLoopPort) { self.loop = nil }
    func setObserving(_ loop: any ClientLoopPort, _ isObserving: Bool) {}

    func post(_ events: [ReplicaEvent], _ arrival: RequestArrival?) {
        for event in events { member.tell(event) }
        deliver()
    }

    func pass(_ span: TimeSpan) {
        member.pass(span)
        deliver()
    }

    private func deliver() {
        var delivery = ReplicaDelivery()
        delivery.answers = member.effects.answers
        delivery.grants = member.effects.grants
        delivery.watch = member.effects.watch
        delivery.leaderlessStreams = member.effects.leaderlessStreams
        member.effects = ReplicaEffects()
        guard let loop, !delivery.isEmpty else { return }
        let whole = delivery
        loop.eventLoop.execute { loop.deliver(whole) }
    }
}

/// A loop that turns when it is told to. Other threads may hand it work, as they may not do with NIO's embedded one, on which its timers are.
private final class TurnLoop: EventLoop, @unchecked Sendable {
    // @unchecked: `timers` is used in its own thread only.
    private let timers: EmbeddedEventLoop
    private let thread = pthread_self()
    private let queue = Mutex<[@Sendable () -> Void]>([])

    init(_ timers: EmbeddedEventLoop) { self.timers = timers }

    /// False: there was nothing to do.
    func turn() -> Bool {
        let tasks = queue.withLock { queue in
            defer { queue = [] }
            return queue
        }
        for task in tasks { task() }
        return !tasks.isEmpty
    }

    var inEventLoop: Bool { pthread_equal(thread, pthread_self()) != 0 }
    func execute(_ task: @escaping @Sendable () -> Void) { queue.withLock { $0.append(task) } }
    func scheduleTask<T>(deadline: NIODeadline, _ task: @escaping @Sendable () throws -> T) -> Scheduled<T> { timers.scheduleTask(deadline: deadline, task) }
    func scheduleTask<T>(in span: TimeAmount, _ task: @escaping @Sendable () throws -> T) -> Scheduled<T> { timers.scheduleTask(in: span, task) }
    func shutdownGracefully(queue: DispatchQueue, _ callback: @escaping @Sendable ((any Error)?) -> Void) { callback(nil) }
}
