/// A decoder of bytes from outside, as fuzzers see it: any bytes go in, and it returns. What it must hold beyond that (a value
/// survives coding, a call ends once) it checks with preconditions, so that a violation is a crash as any other.
struct FuzzTarget: Sendable {
    /// Names the corpus' folder.
    let name: String
    /// What honest input looks like; mutations start from these and the kept corpus.
    let seeds: @Sendable () -> [[UInt8]]
    /// Bytes that mutations should know of.
    var words: [String] = []
    /// Longer inputs are not made.
    var maxBytes = 4 << 10
    let run: @Sendable (UnsafeRawBufferPointer) -> Void
}

enum FuzzTargets {
    /// Everything that reads bytes from outside; README.md says where each comes from.
    static let all: [FuzzTarget] = storage + peers + peerConnections + requests + grpc + clientPort + gateway + tls + clientAnswers + terminal + consoleFiles + consoleFeeds

    static func named(_ name: String) -> FuzzTarget? { all.first { $0.name == name } }
}

/// Reads an input as a sequence of small choices and pieces; at its end everything is zero and empty.
struct Choices {
    private let bytes: UnsafeRawBufferPointer
    private var at = 0
    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { at >= bytes.count }

    mutating func byte() -> UInt8 {
        guard at < bytes.count else { return 0 }
        defer { at += 1 }
        return bytes[at]
    }

    mutating func number() -> Int {
        let low = byte()
        return Int(low) | Int(byte()) << 8
    }

    /// Behind two bytes of length.
    mutating func piece() -> [UInt8] {
        let count = min(number(), bytes.count - at)
        defer { at += count }
        return [UInt8](bytes[at..<at + count])
    }

    mutating func rest() -> [UInt8] {
        defer { at = bytes.count }
        return [UInt8](bytes[at...])
    }
}

/// Writes what `Choices.piece` reads.
func piece(_ bytes: [UInt8]) -> [UInt8] { [UInt8(truncatingIfNeeded: bytes.count), UInt8(truncatingIfNeeded: bytes.count >> 8)] + bytes }
