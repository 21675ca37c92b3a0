#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// The file descriptors of this process. Clients get what is left when log, store, peers and the rest have theirs: were clients able to use them up,
/// anybody who can connect could stop the member's disk.
public enum DescriptorLimit {
    /// Kept from clients. (etcd's number)
    static let reserved = 150

    #if canImport(Glibc)
    private static let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #else
    private static let resource = RLIMIT_NOFILE
    #endif

    /// As many as the system lets this process have, as Go's programs do: the lower limit is for programs that use `select`.
    public static func raise() {
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0, limit.rlim_cur < limit.rlim_max else { return }
        #if canImport(Darwin)
        limit.rlim_cur = min(limit.rlim_max, rlim_t(OPEN_MAX))
        #else
        limit.rlim_cur = limit.rlim_max
        #endif
        _ = setrlimit(resource, &limit)
    }

    /// Connections of clients that the process has room for.
    static var connections: Int {
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return .max }
        return connections(ofDescriptors: Int(clamping: limit.rlim_cur))
    }

    static func connections(ofDescriptors count: Int) -> Int { max(count - reserved, count / 2) }
}
