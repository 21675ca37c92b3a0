import Auth
import Base
import GRPC
import NIOCore
import Replica
import Store
import Wire

// What each method asks of the member. Checks come in etcd's order: learner gate, leader, then the method's own. (§1.3)
extension GRPCConnection {
    func session(_ session: GRPCServerSession, called stream: StreamID, _ head: RequestHead, request: UnsafeRawBufferPointer) {
        guard let method = MethodID(rawValue: head.method) else { preconditionFailure("method \(head.method)") }
        loop.counters.start(method)
        loop.counters.receive(method)
        received(request.count)
        if isOver(head) { return refuse(stream, method, .service(ClientLoop.timeIsUp)) }
        do throws(CallFault) {
            try handle(method, stream, head, request)
        } catch {
            refuse(stream, method, error)
        }
    }

    func session(_ session: GRPCServerSession, opened stream: StreamID, _ head: RequestHead) {
        guard let method = MethodID(rawValue: head.method) else { preconditionFailure("method \(head.method)") }
        loop.counters.start(method)
        if loop.isLearner { return refuse(stream, method, .service(.notSupportedForLearner)) }
        if isOver(head) { return refuse(stream, method, .service(ClientLoop.timeIsUp)) }
        let deadline = deadline(head)
        switch method {
        case .watch:
            let credential = credential(head)
            guard let place = loop.open(self, stream, method, .free, requiresLeader: head.requiresLeader, credential: credential,
                                        deadline: deadline) else {
                return refuse(stream, method, .service(.requestTooManyRequests))
            }
            let id = loop.streamID(place)
            loop.setWork(place, .watch(WatchCall(id: id)))
            table.insert(stream, place)
            loop.post(.watch(id, .open(requiresLeader: head.requiresLeader, from: credential)))
        case .leaseKeepAlive:
            loop.refreshStatus()
            if head.requiresLeader, !loop.hasLeader { return refuse(stream, method, .service(.noLeader)) }
            guard let place = loop.open(self, stream, method, .keepAlive(KeepAliveCall()), requiresLeader: head.requiresLeader,
                                        credential: credential(head), deadline: deadline) else {
                return refuse(stream, method, .service(.requestTooManyRequests))
            }
            table.insert(stream, place)
        default: preconditionFailure("\(method) is no bidirectional method")
        }
    }

    func session(_ session: GRPCServerSession, received message: UnsafeRawBufferPointer, on stream: StreamID) {
        received(message.count)
        guard let place = table.find(stream) else { return }
        loop.counters.receive(loop.method(place))
        var reader = ByteReader(message)
        do throws(DecodingFault) {
            switch loop.work(place) {
            case .watch(let call):
                loop.post(.watch(call.id, .request(try WatchRequest.decode(&reader))))
            case .keepAlive(let call):
                let lease = LeaseID(Int64(bitPattern: try NumberFields.decode(message).first))
                guard call.waiting < loop.bounds.maxWaitingKeepAlives else { return loop.fail(place, .requestTooManyRequests) }
                call.entries.append(KeepAliveCall.Entry(lease: lease))
                advance(call, on: stream)
            default: break
            }
        } catch {
            loop.fail(place, CallFault.undecodable(error).streamError)
        }
    }

    func session(_ session: GRPCServerSession, halfClosed stream: StreamID) {
        // A watch goes on. (§5.1)
        guard let place = table.find(stream), case .keepAlive(let call) = loop.work(place) else { return }
        call.isHalfClosed = true
        advance(call, on: stream)
    }

    func session(_ session: GRPCServerSession, cancelled stream: StreamID) {
        guard let place = table.find(stream) else { return }
        loop.cancel(place, .canceled)
    }

    // MARK: Unary calls

    private func handle(_ method: MethodID, _ stream: StreamID, _ head: RequestHead, _ raw: UnsafeRawBufferPointer) throws(CallFault) {
        if loop.isLearner { try passLearnerGate(method, raw) }
        var reader = ByteReader(raw)
        switch method {
        case .range:
            let request = try decoded { () throws(DecodingFault) in try RangeRequest.decode(&reader) }
            try checked { () throws(ServiceError) in try request.validate() }
            try ask(method, stream, head, request.serializable ? .localRead : .read, .range(request))
        case .put:
            let request = try decoded { () throws(DecodingFault) in try PutRequest.decode(&reader) }
            try checkedOrNoSpace(request.quotaCost) { () throws(ServiceError) in try request.validate() }
            try ask(method, stream, head, .propose(.put, body: [UInt8](raw), cost: request.quotaCost))
        case .deleteRange:
            let request = try decoded { () throws(DecodingFault) in try DeleteRangeRequest.decode(&reader) }
            try checked { () throws(ServiceError) in try request.validate() }
            try ask(method, stream, head, .propose(.deleteRange, body: [UInt8](raw), cost: 0))
        case .txn:
            let request = try decoded { () throws(DecodingFault) in try TxnRequest.decode(&reader) }
            let cost = request.quotaCost
            try checkedOrNoSpace(cost) { () throws(ServiceError) in try request.validate(maxTxnOps: self.loop.identity.options.maxTxnOps) }
            if request.isReadOnly {
                // Without operations too: local, no quorum. (§4.4)
                try ask(method, stream, head, request.isSerializable ? .localRead : .read, .readTxn(request))
            } else {
                try ask(method, stream, head, .propose(.txn, body: [UInt8](raw), cost: cost))
            }
        case .compact:
            _ = try decoded { () throws(DecodingFault) in try CompactionRequest.decode(&reader) }
            try ask(method, stream, head, .propose(.compaction, body: [UInt8](raw), cost: 0))

        case .leaseGrant:
            let fields = try numbers(raw)
            let ttl = Int64(bitPattern: fields.first)
            guard ttl <= GRPCConnection.maxLeaseTTLSeconds else { throw .service(.leaseTTLTooLarge) }
            try ask(method, stream, head, .leaseGrant(lease: LeaseID(Int64(bitPattern: fields.second)), ttlSeconds: ttl))
        case .leaseRevoke:
            _ = try numbers(raw)
            try ask(method, stream, head, .propose(.leaseRevoke, body: [UInt8](raw), cost: 0))
        case .leaseTimeToLive:
            let fields = try numbers(raw)
            try ask(method, stream, head, .leaseTimeToLive(LeaseID(Int64(bitPattern: fields.first)), wantsKeys: fields.second != 0))
        case .leaseLeases:
            try ignored(raw)
            try ask(method, stream, head, .leases)

        case .memberList:
            let fields = try numbers(raw)
            try ask(method, stream, head, .members(linearizable: fields.first != 0))
        case .memberAdd:
            let request = try decoded { () throws(DecodingFault) in try PBMemberAddRequest(decoding: raw) }
            guard let urls = NodeURL.peerURLs(request.peerUrls) else { throw .service(.memberBadURLs) }
            // etcd's: what makes the id new is the second in which it was asked for.
            let id = Identifiers.member(peerURLs: urls, token: String(SystemClock().wall().milliseconds / 1_000))
            try ask(method, stream, head, .changeMembership(.add(Member(id: id, peerURLs: urls, isLearner: request.isLearner))))
        case .memberRemove:
            try ask(method, stream, head, .changeMembership(.remove(MemberID(try numbers(raw).first))))
        case .memberPromote:
            try ask(method, stream, head, .changeMembership(.promote(MemberID(try numbers(raw).first))))
        case .memberUpdate:
            // URLs are taken as they are given. (§7)
            let request = try decoded { () throws(DecodingFault) in try PBMemberUpdateRequest(decoding: raw) }
            try ask(method, stream, head, .changeMembership(.update(MemberID(request.id), peerURLs: request.peerUrls)))

        case .status:
            try ignored(raw)
            try ask(method, stream, head, .status)
        case .alarm:
            let fields = try numbers(raw)
            guard let action = AlarmAction(rawValue: UInt32(truncatingIfNeeded: fields.first)) else {
                try requireLeader(head)
                return answer(stream, method) { $0.headerOnly }
            }
            try ask(method, stream, head, .alarm(action, member: MemberID(fields.second), kind: UInt32(truncatingIfNeeded: fields.third)))
        case .hash:
            try ignored(raw)
            try ask(method, stream, head, .localRead, .hash)
        case .hashKV:
            let fields = try numbers(raw)
            try ask(method, stream, head, .localRead, .hashKV(Revision(Int64(bitPattern: fields.first))))
        case .moveLeader:
            let fields = try numbers(raw)
            try ask(method, stream, head, .moveLeader(to: MemberID(fields.first)))
        case .defragment:
            // The backend gives freed pages to later writes by itself, so there is nothing to rewrite.
            try ignored(raw)
            try ask(method, stream, head, .permission(.root), .admission(.defragment))
        case .snapshot:
            try ignored(raw)
            try ask(method, stream, head, .durableRead, .snapshot(SnapshotCall()))
        case .downgrade:
            // Who may not, hears that first.
            try ask(method, stream, head, .permission(.root), .admission(.downgrade(try decoded { () throws(DecodingFault) in try PBDowngradeRequest(decoding: raw) })))

        case .authStatus, .authenticate, .authEnable, .authDisable, .userAdd, .userGet, .userList, .userDelete, .userChangePassword,
             .userGrantRole, .userRevokeRole, .roleAdd, .roleGet, .roleList, .roleDelete, .roleGrantPermission, .roleRevokePermission:
            try handleAuth(method, stream, head, raw)

        case .lock, .unlock, .campaign, .proclaim, .leader, .observe, .resign:
            try handleLockElection(method, stream, head, raw)

        case .healthCheck:
            let service = try decoded { () throws(DecodingFault) in try decodeHealthService(raw) }
            try requireLeader(head)
            guard service.isEmpty else { throw .service(ServiceError(.notFound, "unknown service")) }
            answer(stream, method) { $0.health(.serving) }
        case .healthList:
            try requireLeader(head)
            answer(stream, method) { _ in
                var writer = ByteWriter()
                ResponseMessage.healthList(.serving, into: &writer)
                return writer.bytes
            }
        case .healthWatch:
            let service = try decoded { () throws(DecodingFault) in try decodeHealthService(raw) }
            try requireLeader(head)
            guard let place = loop.open(self, stream, method, .healthWatch, deadline: deadline(head)) else {
                throw .service(.requestTooManyRequests)
            }
            table.insert(stream, place)
            session.sendMessage(stream) { ResponseMessage.health(service.isEmpty ? .serving : .serviceUnknown, into: &$0) }
            loop.counters.send(method)
            loop.touch(self)

        case .observeMember:
            let request = try decoded { () throws(DecodingFault) in try PBObserveRequest(decoding: raw) }
            let call = ObserveCall(life: request.life, sequence: request.sequence, limit: loop.bounds.maxWaitingObserverEvents)
            // Members, roles and positions of the log: for whoever is known.
            try ask(method, stream, head, .permission(.user), .admission(.observe(call)))

        case .watch, .leaseKeepAlive: preconditionFailure("\(method) is no unary method")
        }
    }

    /// The longest lease that etcd grants, in seconds.
    static let maxLeaseTTLSeconds: Int64 = 9_000_000_000

    /// On a learner only what needs no quorum and is meant for it. (§1.3)
    private func passLearnerGate(_ method: MethodID, _ raw: UnsafeRawBufferPointer) throws(CallFault) {
        switch method {
        case .status, .snapshot, .observeMember: return
        case .range:
            var reader = ByteReader(raw)
            let request = try decoded { () throws(DecodingFault) in try RangeRequest.decode(&reader) }
            if request.serializable { return }
        default: break
        }
        throw .service(.notSupportedForLearner)
    }

    // MARK: Steps

    /// Puts the call into the loop's table and its question into the next batch.
    @inline(__always)
    func ask(_ method: MethodID, _ stream: StreamID, _ head: RequestHead, _ request: Request,
             _ work: ClientCall.Work = .answered) throws(CallFault) {
        // Whoever logs in is nobody yet: a token from before, stale or not, plays no part.
        let credential = method == .authenticate ? .none : credential(head)
        guard let place = loop.open(self, stream, method, work, requiresLeader: head.requiresLeader, credential: credential,
                                    deadline: deadline(head)) else {
            throw .service(.requestTooManyRequests)
        }
        table.insert(stream, place)
        loop.ask(place, request)
    }

    /// Answers from what this loop knows.
    private func answer(_ stream: StreamID, _ method: MethodID, _ body: (LocalAnswer) -> [UInt8]) {
        loop.refreshStatus(always: true)
        respond(stream, body(LocalAnswer(header: loop.header())))
        loop.counters.send(method)
        loop.counters.handle(method, .ok)
    }

    /// `hasleader`, for calls that the member does not hear of.
    func requireLeader(_ head: RequestHead) throws(CallFault) {
        guard head.requiresLeader else { return }
        loop.refreshStatus(always: true)
        if !loop.hasLeader { throw .service(.noLeader) }
    }

    private func refuse(_ stream: StreamID, _ method: MethodID, _ fault: CallFault) {
        let error = method.kind == .unary ? fault.serviceError : fault.streamError
        loop.counters.handle(method, error.code)
        finish(stream, error.code, error.message)
    }

    /// Nobody hears an answer within a microsecond. The timer would come after it all the same.
    @inline(__always)
    private func isOver(_ head: RequestHead) -> Bool {
        guard let timeout = head.timeout else { return false }
        return timeout < .microseconds(1)
    }

    @inline(__always)
    func deadline(_ head: RequestHead) -> NIODeadline {
        guard let timeout = head.timeout else { return .distantFuture }
        // Beyond some centuries the sum would overflow.
        return timeout.nanoseconds > 1 << 60 ? .distantFuture : .now() + .nanoseconds(timeout.nanoseconds)
    }

    @inline(__always)
    func decoded<T>(_ body: () throws(DecodingFault) -> T) throws(CallFault) -> T {
        do throws(DecodingFault) { return try body() } catch { throw .undecodable(error) }
    }

    @inline(__always)
    private func checked(_ body: () throws(ServiceError) -> Void) throws(CallFault) {
        do throws(ServiceError) { try body() } catch { throw .service(error) }
    }

    /// etcd looks at the quota before it looks at the request. The member does that; here it only matters which error a bad
    /// request gets on a full store. (§4.2, §4.4)
    @inline(__always)
    private func checkedOrNoSpace(_ cost: Int, _ body: () throws(ServiceError) -> Void) throws(CallFault) {
        do throws(ServiceError) {
            try body()
        } catch {
            if cost > 0, let size = loop.port.published?.size,
               size.usedBytes + Int64(cost) >= loop.identity.options.effectiveQuotaBytes { throw .service(.noSpace) }
            throw .service(error)
        }
    }

    private func numbers(_ raw: UnsafeRawBufferPointer) throws(CallFault) -> NumberFields {
        do throws(DecodingFault) { return try NumberFields.decode(raw) } catch { throw .undecodable(error) }
    }

    private func ignored(_ raw: UnsafeRawBufferPointer) throws(CallFault) {
        do throws(DecodingFault) { try decodeIgnoringFields(raw) } catch { throw .undecodable(error) }
    }
}

/// Why a call is refused before the member hears of it.
enum CallFault: Error {
    case service(ServiceError)
    /// The request is no protobuf message.
    case undecodable(DecodingFault)

    var serviceError: ServiceError {
        switch self {
        case .service(let error): error
        case .undecodable(let fault): ServiceError(.internal, "grpc: error unmarshalling request: \(CallFault.text(of: fault))")
        }
    }

    /// In the words for a message on a stream.
    var streamError: ServiceError {
        guard case .undecodable(let fault) = self else { return serviceError }
        return ServiceError(.internal, "grpc: failed to unmarshal the received message: \(CallFault.text(of: fault))")
    }

    private static func text(of fault: DecodingFault) -> String {
        switch fault {
        case .truncated: "unexpected EOF"
        case .malformed(let what): what
        }
    }
}

/// Answers that need nothing but a header.
private struct LocalAnswer {
    let header: ResponseHeader

    var headerOnly: [UInt8] { encoded { ResponseMessage.headerOnly(header, into: &$0) } }
    func health(_ status: HealthStatus) -> [UInt8] { encoded { ResponseMessage.health(status, into: &$0) } }

    private func encoded(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter(capacity: 64)
        body(&writer)
        return writer.bytes
    }
}
