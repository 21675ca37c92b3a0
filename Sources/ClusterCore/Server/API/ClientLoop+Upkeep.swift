import Base
import GRPC
import NIOCore

/// Looks after connections from time to time, all of a loop at once: who is gone, and who holds memory without end. Nothing of it is done, or timed,
/// when bytes come.
extension ClientLoop {
    func startUpkeep() {
        guard upkeepTimer == nil, !isPaused, !isClosed, !channels.isEmpty else { return }
        scheduleUpkeep(isWaiting: false)
    }

    func stopUpkeep() {
        upkeepTimer?.cancel()
        upkeepTimer = nil
    }

    private func scheduleUpkeep(isWaiting: Bool) {
        upkeepTimer = eventLoop.scheduleTask(in: .nanoseconds(upkeep.next(isWaiting: isWaiting).nanoseconds)) { self.look() }
    }

    private func look() {
        upkeepTimer = nil
        guard !isPaused, !isClosed, !channels.isEmpty else { return }
        let now = Instant(NIODeadline.now())
        let isForStuck = upkeep.isForStuck(at: now)
        var isWaiting = false
        for record in Array(channels.values) {
            if isForStuck, let what = stuck(record) {
                close(record, because: what)
                continue
            }
            guard let connection = record.grpc else { continue }
            switch connection.vigil.look(at: now, bounds.keepAlive) {
            case .fine: break
            case .ask: connection.ask()
            case .gone: close(record, because: "no answer to a ping within \(bounds.keepAlive.timeout.milliseconds) ms")
            }
            isWaiting = isWaiting || connection.vigil.isWaiting
        }
        flushTouched()
        scheduleUpkeep(isWaiting: isWaiting)
    }

    /// Why a connection must go; nil: it may stay.
    private func stuck(_ record: ClientChannel) -> String? {
        record.grpc?.session.age(limit: Upkeep.stuckLooks)
        if let connection = record.grpc, connection.session.wantsWrite { touch(connection) }
        let isReading = record.grpc?.takesAnswers() ?? record.http?.takesAnswers() ?? record.gatewaySocket?.isWritable ?? true
        // Whoever stands still may do so while there is room for all.
        record.stuckLooks = isReading || !isShortOfRoom ? 0 : record.stuckLooks + 1
        return record.stuckLooks >= Upkeep.stuckLooks ? "it does not read its answers, and there is no more room for those of others" : nil
    }

    /// As if it had never been there: what is buffered for it is nobody's any more.
    private func close(_ record: ClientChannel, because reason: String) {
        logger.info("client connection closed", metadata: ["remote": "\(record.channel.remoteAddress.map(\.description) ?? "")", "reason": "\(reason)"])
        record.close(abruptly: true)
    }
}

extension Instant {
    init(_ deadline: NIODeadline) { self.init(nanoseconds: Int64(deadline.uptimeNanoseconds)) }
}

extension GRPCConnection {
    /// Asks the client whether it is there.
    func ask() {
        session.ping(GRPCConnection.pingPayload)
        loop.touch(self)
    }
    private static let pingPayload: UInt64 = 0x7175_6172_7465_7264

    func sessionGotPing(_ session: GRPCServerSession) {
        guard pingPolicy != nil else { return }
        let isAllowed = pingPolicy!.allows(at: Instant(.now()), openCalls: session.openStreams, hasSent: session.takeHasSent())
        // The words of gRPC's server: its clients double their interval when they hear them.
        if !isAllowed { session.refuse("too_many_pings") }
    }
}
