#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif
import Base

/// The methods that a server knows, found by the bytes of their path without allocation (about 10 ns).
public struct MethodTable: Sendable {
    private let paths: [[UInt8]]
    private let kinds: [CallKind]
    private let services: [String]
    /// Open addressing; 0xffff is a free slot.
    private let slots: [UInt16]
    private let mask: Int

    /// `methods` in the order of their numbers. Paths look like `/package.Service/Method`.
    public init(_ methods: [(path: String, kind: CallKind)]) {
        precondition(methods.count < 0xffff, "\(methods.count) methods")
        paths = methods.map { Array($0.path.utf8) }
        kinds = methods.map(\.kind)
        var services: [String] = []
        for method in methods {
            guard let parts = MethodTable.split(method.path) else { preconditionFailure("method path \(method.path)") }
            if !services.contains(parts.service) { services.append(parts.service) }
        }
        self.services = services
        var size = 16
        while size < methods.count * 4 { size *= 2 }
        mask = size - 1
        var slots = [UInt16](repeating: 0xffff, count: size)
        for (index, path) in paths.enumerated() {
            var slot = path.withUnsafeBytes { MethodTable.hash($0) } & mask
            while slots[slot] != 0xffff { slot = (slot + 1) & mask }
            slots[slot] = UInt16(index)
        }
        self.slots = slots
    }

    public var count: Int { paths.count }
    public func kind(_ method: UInt16) -> CallKind { kinds[Int(method)] }
    public func path(_ method: UInt16) -> String { String(decoding: paths[Int(method)], as: UTF8.self) }

    /// The number of the method at `path`; nil when there is none.
    public func find(_ path: UnsafeRawBufferPointer) -> UInt16? {
        guard let base = path.baseAddress else { return nil }
        var slot = MethodTable.hash(path) & mask
        while true {
            let index = slots[slot]
            if index == 0xffff { return nil }
            let matches = paths[Int(index)].withUnsafeBytes { $0.count == path.count && memcmp($0.baseAddress!, base, path.count) == 0 }
            if matches { return index }
            slot = (slot + 1) & mask
        }
    }

    /// The text that goes with UNIMPLEMENTED for a path that is not in the table, in grpc-go's words.
    public func unimplementedMessage(_ path: String) -> String {
        guard let parts = MethodTable.split(path) else { return "malformed method name: \"\(path)\"" }
        return services.contains(parts.service)
            ? "unknown method \(parts.method) for service \(parts.service)" : "unknown service \(parts.service)"
    }

    private static func split(_ path: String) -> (service: String, method: String)? {
        guard path.first == "/", let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return nil }
        return (String(path[path.index(after: path.startIndex)..<slash]), String(path[path.index(after: slash)...]))
    }

    /// Mixes the last eight bytes and the length: method names differ at their end.
    @inline(__always)
    private static func hash(_ path: UnsafeRawBufferPointer) -> Int {
        var word: UInt64 = 0
        if path.count >= 8 {
            word = path.loadUnaligned(fromByteOffset: path.count - 8, as: UInt64.self)
        } else {
            for byte in path { word = word << 8 | UInt64(byte) }
        }
        word = (word ^ UInt64(path.count)) &* 0x9e37_79b9_7f4a_7c15
        return Int(truncatingIfNeeded: word >> 40)
    }
}
