import NIOPosix

/// The threads on which reads of the whole store run. Two: they are rare, and each fills a core.
enum LongReads {
    private static let pool: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: 2)
        pool.start()
        return pool
    }()

    static func run(_ body: @escaping @Sendable () -> Void) {
        pool.submit { state in
            guard case .active = state else { return }
            body()
        }
    }
}
