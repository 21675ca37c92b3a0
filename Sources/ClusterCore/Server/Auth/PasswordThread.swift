import Base
import NIOPosix
import Synchronization

/// The thread on which passwords are hashed and compared, one for the process: whoever floods a node with logins keeps one core busy,
/// and heartbeats and requests have the others.
enum PasswordThread {
    /// Jobs that wait at once. With etcd's cost they are some 15 seconds of work, twice what a client waits.
    static let maxWaiting = 256

    private static let pool: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: 1)
        pool.start()
        return pool
    }()
    private static let waiting = Atomic<Int>(0)

    /// Runs `body` on the thread.
    /// - Throws: `.requestTooManyRequests` when too many wait.
    static func run(_ body: @escaping @Sendable () -> Void) throws(ServiceError) {
        guard waiting.add(1, ordering: .relaxed).newValue <= maxWaiting else {
            waiting.subtract(1, ordering: .relaxed)
            throw .requestTooManyRequests
        }
        pool.submit { state in
            waiting.subtract(1, ordering: .relaxed)
            guard case .active = state else { return }
            body()
        }
    }
}
