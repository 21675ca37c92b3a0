import Auth
import Base
import GRPC
import NIOCore
import Replica
import Store
import Wire

// Lock and Election calls: their questions go to the member as the caller's, under the call's own place.
extension GRPCConnection {
    func handleLockElection(_ method: MethodID, _ stream: StreamID, _ head: RequestHead, _ raw: UnsafeRawBufferPointer) throws(CallFault) {
        let call = try LockElectionCall(method, raw, maxTxnOps: loop.identity.options.maxTxnOps)
        // Of its questions none is asked with `hasleader`: a call that waits outlasts elections, as in etcd.
        try requireLeader(head)
        guard let place = loop.open(self, stream, method, .lockElection(call), credential: credential(head), deadline: deadline(head)) else {
            throw .service(.requestTooManyRequests)
        }
        table.insert(stream, place)
        loop.carryOut(call.begin(), call, place)
    }
}

extension LockElectionCall {
    convenience init(_ method: MethodID, _ raw: UnsafeRawBufferPointer, maxTxnOps: Int) throws(CallFault) {
        func decoded<T>(_ body: () throws(DecodingFault) -> T) throws(CallFault) -> T {
            do throws(DecodingFault) { return try body() } catch { throw .undecodable(error) }
        }
        func proof(_ given: Bool, _ leader: PBLeaderKey) throws(CallFault) -> LeaderKey {
            guard given else { throw .service(.missingLeaderKey) }
            return LeaderKey(key: [UInt8](leader.key), revision: Revision(leader.rev), lease: LeaseID(leader.lease))
        }
        switch method {
        case .lock:
            let request = try decoded { () throws(DecodingFault) in try PBLockRequest(decoding: raw) }
            self.init(.lock, name: [UInt8](request.name), lease: LeaseID(request.lease), maxTxnOps: maxTxnOps)
        case .unlock:
            let request = try decoded { () throws(DecodingFault) in try PBUnlockRequest(decoding: raw) }
            self.init(.unlock(key: [UInt8](request.key)), name: [], lease: .none, maxTxnOps: maxTxnOps)
        case .campaign:
            let request = try decoded { () throws(DecodingFault) in try PBCampaignRequest(decoding: raw) }
            self.init(.campaign(value: [UInt8](request.value)), name: [UInt8](request.name), lease: LeaseID(request.lease), maxTxnOps: maxTxnOps)
        case .proclaim:
            let request = try decoded { () throws(DecodingFault) in try PBProclaimRequest(decoding: raw) }
            let leader = try proof(request.hasLeader, request.leader)
            self.init(.proclaim(leader, value: [UInt8](request.value)), name: [], lease: leader.lease, maxTxnOps: maxTxnOps)
        case .resign:
            let request = try decoded { () throws(DecodingFault) in try PBResignRequest(decoding: raw) }
            let leader = try proof(request.hasLeader, request.leader)
            self.init(.resign(leader), name: [], lease: leader.lease, maxTxnOps: maxTxnOps)
        case .leader, .observe:
            let request = try decoded { () throws(DecodingFault) in try PBLeaderRequest(decoding: raw) }
            self.init(method == .leader ? .leader : .observe, name: [UInt8](request.name), lease: .none, maxTxnOps: maxTxnOps)
        default: preconditionFailure("\(method) is no method of Lock or Election")
        }
    }
}

extension ClientLoop {
    func carryOut(_ next: LockElectionCall.Next, _ call: LockElectionCall, _ place: Int) {
        switch next {
        case .grantLease(let seconds): ask(place, .leaseGrant(lease: .none, ttlSeconds: seconds))
        case .propose(let kind, let body, let cost): ask(place, .propose(kind, body: body, cost: cost))
        case .read:
            if isBehind(place) {
                call.isHeldBack = true
            } else {
                ask(place, .read)
            }
        case .watch(let key, let rangeEnd, let revision):
            let stream = streamID(place)
            if !call.hasStream {
                call.hasStream = true
                post(.watch(stream, .open(requiresLeader: false, from: credential(place))))
            } else {
                // One that a compaction has ended is forgotten by this.
                post(.watch(stream, .request(.cancel(call.watch))))
            }
            call.watch = WatchID(call.watch.rawValue + 1)
            call.isWatchingQueue = !rangeEnd.isEmpty
            post(.watch(stream, .request(.create(WatchCreateRequest(key: key, rangeEnd: rangeEnd, startRevision: revision, watchID: call.watch)))))
        case .wait: break
        case .answer(let bytes):
            closeWatch(of: call, place)
            respond(place, bytes)
        case .fail(let error):
            takeBack(call.takeBack(), place)
            fail(place, error)
        }
    }

    func answered(_ bytes: [UInt8], _ call: LockElectionCall, _ place: Int) {
        guard !call.isOrphan else {
            takeBack(call.enteredLate(bytes), place)
            return close(place)
        }
        carryOut(call.answered(bytes), call, place)
    }

    func refused(_ error: ServiceError, _ call: LockElectionCall, _ place: Int) {
        guard !call.isOrphan else { return close(place) }
        carryOut(call.failed(error), call, place)
    }

    func look(_ call: LockElectionCall, _ place: Int, _ grant: ReadGrant, _ caller: Caller?, _ header: ResponseHeader, _ reader: any BackendReader) {
        do throws(ServiceError) {
            let range = call.range
            try grant.auth.requirePermission(for: range, by: caller)
            let found = try grant.snapshot.range(range, reader: reader)
            var own: RangeResult?
            if let range = call.ownRange { own = try grant.snapshot.range(range, reader: reader) }
            var header = header
            header.revision = grant.snapshot.revision
            let (message, next) = call.looked(found, own: own, header: header)
            if let message { tell([message], place) }
            carryOut(next, call, place)
        } catch {
            carryOut(call.failed(error), call, place)
        }
    }

    func watched(_ response: WatchResponse, _ call: LockElectionCall, _ place: Int) {
        let (messages, next) = call.watched(response, header: header())
        tell(messages, place)
        call.owed.responses += 1
        call.owed.bytes += response.backlogBytes
        if !isBehind(place) { settle(call, place) }
        carryOut(next, call, place)
    }

    // MARK: Observe streams whose client does not read

    private func tell(_ messages: [[UInt8]], _ place: Int) {
        let (connection, stream) = endpoint(place)
        for message in messages {
            connection?.send(message, on: stream)
            counters.send(.observe)
        }
    }

    /// The client has enough to read; `drained` comes when half of it has left. The member holds back what it is not credited with.
    private func isBehind(_ place: Int) -> Bool {
        let (connection, stream) = endpoint(place)
        guard let connection, connection.session.bufferedBytes(stream) > bounds.maxBufferedObserverBytes else { return false }
        connection.session.notifyWhenDrained(stream, below: bounds.maxBufferedObserverBytes / 2)
        return true
    }

    func drained(_ call: LockElectionCall, _ place: Int) {
        guard !isBehind(place) else { return }
        settle(call, place)
        guard call.isHeldBack else { return }
        call.isHeldBack = false
        ask(place, .read)
    }

    private func settle(_ call: LockElectionCall, _ place: Int) {
        guard call.owed.responses > 0 else { return }
        post(.watch(streamID(place), .delivered(responses: call.owed.responses, bytes: call.owed.bytes)))
        call.owed = (0, 0)
    }

    // MARK: Ends

    func closeWatch(of call: LockElectionCall, _ place: Int) {
        guard call.hasStream else { return }
        call.hasStream = false
        post(.watch(streamID(place), .close))
    }

    /// The client waits no longer: its key leaves the queue.
    func leave(_ call: LockElectionCall, _ place: Int, _ code: StatusCode) {
        guard call.leave() else {
            post(.cancel(token(place)))
            takeBack(call.takeBack(), place)
            return drop(place, code)
        }
        counters.handle(method(place), code)
        orphan(place)
    }

    /// The member ends. A key whose lease the caller knows keeps its turn, for a caller that asks again elsewhere.
    func stop(_ call: LockElectionCall, _ place: Int) {
        if call.madeLease { takeBack(call.takeBack(), place) }
        fail(place, .stopped)
    }

    /// As the caller of `place`, whom nobody asks any more whether it worked: the key's lease ends anyway.
    private func takeBack(_ transaction: [UInt8]?, _ place: Int) {
        guard let transaction, let own = open(nil, 0, .txn, .answered, credential: credential(place)) else { return }
        ask(own, .propose(.txn, body: transaction, cost: 0))
    }
}
