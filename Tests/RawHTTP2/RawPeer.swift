#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// A plain socket to a server on this machine that does only what it is told: it reads when asked to, and answers nothing by itself.
public final class RawPeer {
    public struct Failure: Error, CustomStringConvertible {
        public var description: String
    }

    private var descriptor: Int32
    public private(set) var bytes: [UInt8] = []
    /// The server has closed, or reset, the connection.
    public private(set) var isClosed = false

    public init(port: Int) throws {
        #if canImport(Darwin)
        descriptor = socket(AF_INET, SOCK_STREAM, 0)
        #else
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #endif
        guard descriptor >= 0 else { throw Failure(description: "socket: \(String(cString: strerror(errno)))") }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guard status == 0 else {
            let reason = String(cString: strerror(errno))
            close()
            throw Failure(description: "connect to \(port): \(reason)")
        }
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
    }

    deinit { close() }

    public func close() {
        guard descriptor >= 0 else { return }
        #if canImport(Darwin)
        _ = Darwin.close(descriptor)
        #elseif canImport(Musl)
        _ = Musl.close(descriptor)
        #else
        _ = Glibc.close(descriptor)
        #endif
        descriptor = -1
    }

    /// False: the connection is gone, or the server takes no more for so long.
    @discardableResult
    public func send(_ data: [UInt8], seconds: Int32 = 10) -> Bool {
        var at = 0
        while at < data.count, !isClosed {
            let count = data.withUnsafeBytes { write(UnsafeRawBufferPointer(rebasing: $0[at...])) }
            if count > 0 { at += count } else if count < 0, errno == EAGAIN {
                guard wait(Int16(POLLOUT), milliseconds: seconds * 1_000) else { return false }
            } else { isClosed = true }
        }
        return !isClosed
    }

    @discardableResult
    public func send(_ frames: [RawFrame]) -> Bool { send(frames.flatMap(\.bytes)) }

    private func write(_ data: UnsafeRawBufferPointer) -> Int {
        #if canImport(Darwin)
        Darwin.send(descriptor, data.baseAddress, data.count, 0)
        #elseif canImport(Musl)
        Musl.send(descriptor, data.baseAddress, data.count, Int32(MSG_NOSIGNAL))
        #else
        Glibc.send(descriptor, data.baseAddress, data.count, Int32(MSG_NOSIGNAL))
        #endif
    }

    private func wait(_ events: Int16, milliseconds: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: events, revents: 0)
        return poll(&entry, 1, milliseconds) > 0
    }

    /// Takes what has come; with `milliseconds` it waits so long for the first byte.
    public func read(waiting milliseconds: Int32 = 0) {
        guard !isClosed, descriptor >= 0 else { return }
        if milliseconds > 0 { _ = wait(Int16(POLLIN), milliseconds: milliseconds) }
        var room = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = recv(descriptor, &room, room.count, 0)
            if count > 0 { bytes += room.prefix(count) } else {
                if count == 0 || errno != EAGAIN { isClosed = true }
                return
            }
        }
    }

    public var frames: [RawFrame] { RawFrame.parse(bytes) }
    public var text: String { String(decoding: bytes, as: UTF8.self) }

    /// Reads until the condition holds, the end has come, or the time is up. Returns whether it holds.
    @discardableResult
    public func read(seconds: Double = 10, until condition: (RawPeer) -> Bool) -> Bool {
        let end = ContinuousClock.now + .seconds(seconds)
        while !condition(self) {
            if isClosed || ContinuousClock.now > end { return false }
            read(waiting: 20)
        }
        return true
    }

    /// Reads until the server ends the connection; false if it does not.
    public func readToEnd(seconds: Double = 10) -> Bool {
        read(seconds: seconds) { $0.isClosed }
        return isClosed
    }
}
