#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// A password between the request that brought it and the thread that hashes it. It has no text form, and its bytes are overwritten when the
/// last holder lets go. (CVE-2021-28235: etcd kept passwords in requests that outlived them)
final class Secret: @unchecked Sendable, CustomStringConvertible, CustomReflectable {
    // @unchecked: the bytes do not change between init and deinit.
    private let bytes: UnsafeMutableRawBufferPointer

    init(_ raw: UnsafeRawBufferPointer) {
        // Room for the zero that C wants at the end.
        bytes = .allocate(byteCount: raw.count + 1, alignment: 1)
        bytes.copyMemory(from: raw)
        bytes[raw.count] = 0
    }

    convenience init(_ text: String) { self.init(Array(text.utf8)) }
    convenience init(_ bytes: [UInt8]) {
        // The initialiser of a class cannot be called inside a closure, so the pointer is taken apart first.
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        defer {
            wipe(buffer.baseAddress, buffer.count)
            buffer.deallocate()
        }
        buffer.copyBytes(from: bytes)
        self.init(UnsafeRawBufferPointer(buffer))
    }

    deinit {
        wipe(bytes.baseAddress, bytes.count)
        bytes.deallocate()
    }

    var count: Int { bytes.count - 1 }
    var isEmpty: Bool { count == 0 }
    /// C would take only what stands before it.
    var containsZero: Bool { bytes.dropLast().contains(0) }

    func withCString<R>(_ body: (UnsafePointer<CChar>) -> R) -> R { body(UnsafePointer(bytes.baseAddress!.assumingMemoryBound(to: CChar.self))) }

    var description: String { "(secret)" }
    var customMirror: Mirror { Mirror(self, children: [:]) }
}

/// Overwrites memory in a way that the compiler does not take for useless.
func wipe(_ memory: UnsafeMutableRawPointer?, _ count: Int) {
    guard let memory, count > 0 else { return }
    #if canImport(Darwin)
    memset_s(memory, count, 0, count)
    #else
    explicit_bzero(memory, count)
    #endif
}
