import Base
import NIOCore
import Replica
import Store
import Synchronization

/// A Snapshot stream. Confined to its client loop, but for `isOver`.
final class SnapshotCall: @unchecked Sendable {
    /// etcd's size of a blob.
    static let blobBytes = 32 << 10
    fileprivate let isOver = Atomic<Bool>(false)
    fileprivate var spool: SnapshotSpool?
    /// A job has the spool.
    fileprivate var isReading = false

    /// The client is gone, or has everything: what runs stops, the spool goes.
    func end() {
        isOver.store(true, ordering: .relaxed)
        spool = nil
    }
}

extension ClientLoop {
    /// The backend holds what the client may expect: copies it.
    func begin(_ call: SnapshotCall, _ place: Int, _ token: RequestToken, of backend: any Backend) {
        guard let desk = port.snapshotDesk, let room = desk.enter() else { return fail(place, .requestTooManyRequests) }
        desk.spool(backend, room, isCancelled: { call.isOver.load(ordering: .relaxed) }) { [self] result in
            eventLoop.execute { [self] in
                guard let place = find(token.slot), case .snapshot(let call) = work(place) else { return }
                switch result {
                case .success(let spool):
                    call.spool = spool
                    advance(call, place)
                case .failure(let error): fail(place, error)
                }
                flushTouched()
            }
        }
    }

    /// Sends the next pieces, unless the client has enough to read.
    func advance(_ call: SnapshotCall, _ place: Int) {
        guard let spool = call.spool, !call.isReading else { return }
        let (connection, stream) = endpoint(place)
        guard let connection else { return }
        if connection.session.bufferedBytes(stream) > bounds.maxBufferedSnapshotBytes / 2 {
            return connection.session.notifyWhenDrained(stream, below: bounds.maxBufferedSnapshotBytes / 2)
        }
        call.isReading = true
        let token = token(place)
        let bytes = bounds.maxBufferedSnapshotBytes / 2
        LongReads.run { [self] in
            let pieces = Result { try spool.read(bytes, blobBytes: SnapshotCall.blobBytes) }
            eventLoop.execute { [self] in
                guard let place = find(token.slot) else { return }
                call.isReading = false
                send(pieces, call, place)
                flushTouched()
            }
        }
    }

    private func send(_ pieces: Result<[SnapshotSpool.Piece], any Error>, _ call: SnapshotCall, _ place: Int) {
        let (connection, stream) = endpoint(place)
        guard let connection else { return }
        switch pieces {
        case .failure(let error):
            logger.error("a snapshot could not be read back", metadata: ["reason": "\(error)"])
            fail(place, ServiceError(.internal, "etcdserver: snapshot: \(error)"))
        case .success(let pieces):
            for piece in pieces {
                var message = ByteWriter(capacity: piece.bytes.count + 24)
                message.writeField(2, piece.remaining)
                message.writeField(3, piece.bytes)
                connection.send(message.bytes, on: stream)
                counters.send(.snapshot)
            }
            if pieces.last?.isHash == true {
                drop(place, .ok)
                connection.finish(stream, .ok, "")
            } else {
                advance(call, place)
            }
        }
    }
}
