import Logging
import NIOConcurrencyHelpers
import NIOCore

/// Tells the log of connections that were turned away, a few a second at most: whoever knocks fast must not fill the disk. Thread-safe.
final class RejectionLog: Sendable {
    /// Lines in `interval`; what is left out is counted in the next line.
    static let burst = 5
    static let interval = TimeAmount.seconds(1)

    private struct State {
        var windowEnd = NIODeadline.uptimeNanoseconds(0)
        var written = 0
        var leftOut = 0
    }
    private let state = NIOLockedValueBox(State())
    private let logger: Logger

    init(_ logger: Logger) { self.logger = logger }

    /// - Parameter now: for tests.
    func note(_ message: String, remote: SocketAddress?, _ reason: String, at now: NIODeadline = .now()) {
        let leftOut = state.withLockedValue { state -> Int? in
            if now >= state.windowEnd {
                state.windowEnd = now + RejectionLog.interval
                state.written = 0
            }
            guard state.written < RejectionLog.burst else {
                state.leftOut += 1
                return nil
            }
            state.written += 1
            defer { state.leftOut = 0 }
            return state.leftOut
        }
        guard let leftOut else { return }
        var metadata: Logger.Metadata = ["error": "\(reason)"]
        if let remote { metadata["remote-addr"] = "\(remote.ipAddress.map { "\($0.contains(":") ? "[\($0)]" : $0):\(remote.port ?? 0)" } ?? "\(remote)")" }
        if leftOut > 0 { metadata["others-not-logged"] = "\(leftOut)" }
        logger.warning("\(message)", metadata: metadata)
    }
}
