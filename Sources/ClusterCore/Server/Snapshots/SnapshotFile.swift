import Base
import BoltFile
import Crypto
import Foundation

/// Why a snapshot file is of no use, or cannot become a member: one line that says what to do.
public struct SnapshotError: Error, CustomStringConvertible, Sendable {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// How far a long step has come, in bytes.
public struct SnapshotProgress: Sendable {
    public var step: String
    public var doneBytes: UInt64
    public var totalBytes: UInt64
    public init(step: String, doneBytes: UInt64, totalBytes: UInt64) {
        self.step = step
        self.doneBytes = doneBytes
        self.totalBytes = totalBytes
    }
}

/// A snapshot, or a member's `snap/db`, open for reading.
final class SnapshotFile: BoltSource {
    let path: String
    /// Of the file, hash included.
    let fileSize: UInt64
    private let descriptor: Int32
    /// Read so far by `read`, for progress.
    private(set) var readBytes: UInt64 = 0

    static let hashBytes = 32

    init(path: String) throws(SnapshotError) {
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SnapshotError("cannot open \(path): \(String(cString: strerror(errno)).lowercased())") }
        var info = stat()
        guard fstat(descriptor, &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw SnapshotError("\(path) is no file")
        }
        self.path = path
        fileSize = UInt64(info.st_size)
    }
    deinit { close(descriptor) }

    /// Pages are multiples of 512 bytes; what is over is the hash. (etcd)
    var hasHash: Bool { fileSize % 512 == UInt64(SnapshotFile.hashBytes) }
    /// Of the database.
    var size: UInt64 { hasHash ? fileSize - UInt64(SnapshotFile.hashBytes) : fileSize }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BoltFault) {
        var filled = 0
        while filled < buffer.count {
            let moved = pread(descriptor, buffer.baseAddress! + filled, min(buffer.count - filled, 1 << 30), off_t(offset) + off_t(filled))
            if moved < 0, errno == EINTR { continue }
            guard moved > 0 else { throw .io("cannot read \(path): \(moved == 0 ? "it became shorter" : String(cString: strerror(errno)).lowercased())") }
            filled += moved
        }
        readBytes += UInt64(buffer.count)
    }

    /// Compares the hash at the end with what is before it.
    func verifyHash(_ progress: (SnapshotProgress) -> Void) throws {
        guard hasHash else {
            throw SnapshotError("\(path): snapshot missing hash but --skip-hash-check=false (a file copied from a data directory has none: check it otherwise, then skip)")
        }
        var hash = SHA256()
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        var offset: UInt64 = 0
        while offset < size {
            let count = Int(min(UInt64(buffer.count), size - offset))
            try buffer.withUnsafeMutableBytes { raw in
                let piece = UnsafeMutableRawBufferPointer(rebasing: raw[..<count])
                try read(into: piece, at: offset)
                hash.update(bufferPointer: UnsafeRawBufferPointer(piece))
            }
            offset += UInt64(count)
            progress(SnapshotProgress(step: "checking", doneBytes: offset, totalBytes: size))
        }
        var expected = [UInt8](repeating: 0, count: SnapshotFile.hashBytes)
        try expected.withUnsafeMutableBytes { try read(into: $0, at: size) }
        let found = Array(hash.finalize())
        guard found == expected else {
            throw SnapshotError("\(path) is damaged: expected sha256 \(SnapshotFile.hex(expected)), got \(SnapshotFile.hex(found))")
        }
    }

    private static func hex(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}

/// Looks at a snapshot that arrives in pieces: whether its last 32 bytes are the SHA-256 of what is before them.
public struct SnapshotHash {
    private var hash = SHA256()
    /// The last 32 bytes so far, which may be the hash.
    private var tail: [UInt8] = []
    private var count: UInt64 = 0
    public init() {}

    public mutating func update(_ bytes: [UInt8]) {
        count += UInt64(bytes.count)
        tail += bytes
        let certain = tail.count - SnapshotFile.hashBytes
        guard certain > 0 else { return }
        hash.update(data: tail[..<certain])
        tail.removeFirst(certain)
    }

    public var endsWithItsHash: Bool {
        count % 512 == UInt64(SnapshotFile.hashBytes) && tail == Array(hash.finalize())
    }
}
