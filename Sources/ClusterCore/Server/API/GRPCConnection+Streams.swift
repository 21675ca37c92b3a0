import GRPC
import Wire

// What streams of the server's own pace send: renewals in their order, observers and snapshots as far as the client reads.
extension GRPCConnection {
    // MARK: Keep-alive

    /// Asks what may be asked and sends what is answered, in the order of the requests.
    func advance(_ call: KeepAliveCall, on stream: StreamID) {
        guard let parent = table.find(stream) else { return }
        while call.head < call.entries.count, let result = call.entries[call.head].result {
            let lease = call.entries[call.head].lease
            call.head += 1
            switch result {
            case .success(let ttl):
                let header = loop.header()
                session.sendMessage(stream) { ResponseMessage.leaseKeepAlive(header, lease: lease, ttl: ttl, into: &$0) }
                loop.counters.send(.leaseKeepAlive)
            case .failure(let error):
                return loop.fail(parent, error)
            }
        }
        call.trim()
        while call.next < call.entries.count, call.running < loop.bounds.maxRunningKeepAlives {
            guard let place = loop.open(self, stream, .leaseKeepAlive, .renewal(call, place: call.base + call.next),
                                        requiresLeader: loop.requiresLeader(parent), credential: loop.credential(parent)) else {
                return loop.fail(parent, .requestTooManyRequests)
            }
            call.entries[call.next].running = loop.token(place)
            call.running += 1
            loop.ask(place, .leaseKeepAlive(call.entries[call.next].lease))
            call.next += 1
        }
        loop.touch(self)
        if call.isHalfClosed, call.waiting == 0 {
            loop.drop(parent, .ok)
            finish(stream, .ok, "")
        }
    }

    // MARK: Observe

    /// Sends what waits, unless the client has enough to read; then the rest follows when half of that has left.
    func advance(_ call: ObserveCall, on stream: StreamID) {
        guard session.bufferedBytes(stream) <= loop.bounds.maxBufferedObserverBytes else {
            return session.notifyWhenDrained(stream, below: loop.bounds.maxBufferedObserverBytes / 2)
        }
        guard let message = call.next(of: loop.identity.member) else { return }
        session.sendMessage(stream, message)
        queued(message.count + 5)
        loop.counters.send(.observeMember)
        loop.touch(self)
    }

    // MARK: Snapshot

    /// A message of a stream that looks itself after how much waits.
    func send(_ message: [UInt8], on stream: StreamID) {
        session.sendMessage(stream, message)
        queued(message.count + 5)
        loop.touch(self)
    }
}
