import Base
import GRPC
import RawHTTP2

/// A server and somebody who sends it frames.
final class Abuser {
    let server: RecordingServer
    /// Everything that the server sent and somebody took.
    private(set) var received: [RawFrame] = []
    private(set) var fault: ProtocolFault?

    init(_ settings: HTTP2Settings = HTTP2Settings()) throws {
        server = RecordingServer(settings: settings)
        try SessionPair.feed(RawFrame.preface, to: server.session)
        try take()
        send([RawFrame(kind: .settings, flags: RawFrame.ack)])
    }

    func take() throws { received += RawFrame.parse(try SessionPair.output(of: server.session)) }

    /// False once the server has had enough.
    @discardableResult
    func send(_ frames: [RawFrame]) -> Bool {
        do throws(ProtocolFault) {
            try feed(frames.flatMap(\.bytes))
            return true
        } catch {
            fault = error
            return false
        }
    }

    private func feed(_ bytes: [UInt8]) throws(ProtocolFault) {
        var fault: ProtocolFault?
        bytes.withUnsafeBytes { raw in
            do throws(ProtocolFault) { try server.session.receive(raw) } catch { fault = error }
        }
        if let fault { throw fault }
    }

    /// How often `frames` can be sent before the server ends the connection; nil: more often than `limit`.
    func endurance(_ limit: Int, isReading: Bool = true, _ frames: (Int) -> [RawFrame]) throws -> Int? {
        for turn in 0..<limit {
            guard send(frames(turn)), !server.session.isFinished else {
                try take()
                return turn
            }
            if isReading { try take() }
        }
        return nil
    }

    func resets(of stream: StreamID) -> [UInt32] { received.filter { $0.kind == .reset && $0.stream == stream }.map(\.code) }
    var goAways: [RawFrame] { received.filter { $0.kind == .goAway } }
}
