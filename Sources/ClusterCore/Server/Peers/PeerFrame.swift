import Base
import Log
import NIOCore
import Replica

/// What travels between members: length (4, little-endian) | CRC-32C (4) of all that follows | kind (1) | 0 (3) | cluster (8) |
/// sender (8) | receiver (8) | payload. Every frame names cluster and members, so that one that went astray is refused.
/// (reliability.md, incident 50)
struct PeerFrame {
    enum Kind: UInt8 {
        /// A count, then that many length-prefixed messages.
        case messages = 1
        case snapshotBegin = 2
        case snapshotChunk = 3
        case snapshotEnd = 4
        /// The receiver has the whole snapshot, durably.
        case snapshotAccepted = 5

        init(_ piece: SnapshotPiece.Kind) {
            switch piece {
            case .begin: self = .snapshotBegin
            case .chunk: self = .snapshotChunk
            case .end: self = .snapshotEnd
            }
        }
        var snapshotPiece: SnapshotPiece.Kind? {
            switch self {
            case .snapshotBegin: .begin
            case .snapshotChunk: .chunk
            case .snapshotEnd: .end
            case .messages, .snapshotAccepted: nil
            }
        }
    }
    static let headerSize = 36
    /// Beyond this a length is damage or an attack: an append message carries about 1 MiB, or one entry of any legal size.
    static let maxPayload = 64 << 20

    var kind: Kind
    var cluster: ClusterID
    var from: MemberID
    var to: MemberID

    /// Appends a frame whose payload `body` writes.
    func write(into writer: inout ByteWriter, _ body: (inout ByteWriter) -> Void) {
        let start = writer.bytes.count
        writer.write(0 as UInt64)
        writer.write(kind.rawValue)
        writer.bytes.append(contentsOf: [0, 0, 0])
        writer.write(cluster.rawValue)
        writer.write(from.rawValue)
        writer.write(to.rawValue)
        body(&writer)
        let length = UInt32(writer.bytes.count - start - PeerFrame.headerSize)
        writer.bytes.withUnsafeMutableBytes { raw in
            let checked = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(raw)[(start + 8)...])
            let checksum = CRC32C.checksum(checked)
            raw.storeBytes(of: length.littleEndian, toByteOffset: start, as: UInt32.self)
            raw.storeBytes(of: checksum.littleEndian, toByteOffset: start + 4, as: UInt32.self)
        }
    }
}

/// Why a peer's bytes were refused; the connection is closed.
enum PeerFrameFault: Error, CustomStringConvertible {
    case tooLong(Int)
    case checksum
    case unknownKind(UInt8)
    case wrongCluster(ClusterID)
    case wrongReceiver(MemberID)
    case decoding(DecodingFault)
    var description: String {
        switch self {
        case .tooLong(let length): "frame of \(length) bytes"
        case .checksum: "frame with a wrong checksum"
        case .unknownKind(let kind): "frame of unknown kind \(kind)"
        case .wrongCluster(let cluster): "frame of cluster \(cluster)"
        case .wrongReceiver(let member): "frame for member \(member)"
        case .decoding(let fault): "undecodable frame: \(fault)"
        }
    }
}

/// Cuts a stream of bytes into frames.
struct PeerFrameReader {
    private var buffer = ByteBuffer()

    mutating func append(_ bytes: ByteBuffer) {
        var bytes = bytes
        if buffer.readableBytes == 0 { buffer = bytes } else { buffer.writeBuffer(&bytes) }
    }

    /// Lends the next whole frame's payload; false when more bytes are needed.
    mutating func next(_ body: (PeerFrame, UnsafeRawBufferPointer) throws(PeerFrameFault) -> Void) throws(PeerFrameFault) -> Bool {
        guard buffer.readableBytes >= PeerFrame.headerSize,
              let length = buffer.getInteger(at: buffer.readerIndex, endianness: .little, as: UInt32.self) else { return false }
        guard length <= PeerFrame.maxPayload else { throw .tooLong(Int(length)) }
        let total = PeerFrame.headerSize + Int(length)
        guard buffer.readableBytes >= total else { return false }
        let fault: PeerFrameFault? = buffer.withUnsafeReadableBytes { raw in
            let frame = UnsafeRawBufferPointer(rebasing: raw[..<total])
            let checksum = UInt32(littleEndian: frame.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
            guard CRC32C.checksum(UnsafeRawBufferPointer(rebasing: frame[8...])) == checksum else { return .checksum }
            guard let kind = PeerFrame.Kind(rawValue: frame[8]) else { return .unknownKind(frame[8]) }
            func id(_ offset: Int) -> UInt64 { UInt64(littleEndian: frame.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
            let header = PeerFrame(kind: kind, cluster: ClusterID(id(12)), from: MemberID(id(20)), to: MemberID(id(28)))
            do throws(PeerFrameFault) {
                try body(header, UnsafeRawBufferPointer(rebasing: frame[PeerFrame.headerSize...]))
                return nil
            } catch { return error }
        }
        if let fault { throw fault }
        buffer.moveReaderIndex(forwardBy: total)
        buffer.discardReadBytes()
        return true
    }
}
