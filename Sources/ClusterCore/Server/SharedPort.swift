import NIOCore
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

extension NIOBSDSocket.Option {
    /// Other sockets that have it set may listen on the same port. NIO has no name for it.
    static let so_reuseport = NIOBSDSocket.Option(rawValue: SO_REUSEPORT)
}
