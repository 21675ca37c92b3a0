import Foundation

/// `--experimental-memory-mlock`: what was touched stays in memory, the store's pages with it.
enum MemoryLock {
    /// For what is mapped now and later. Pages come in as they are used: the store reserves far more room than it has content.
    /// - Throws: when this user may not.
    static func take() throws(CommandFailure) {
        #if os(Linux)
        // MCL_ONFAULT, which the C library's module does not hand to Swift.
        let onFault: Int32 = 4
        guard mlockall(MCL_CURRENT | MCL_FUTURE | onFault) == 0 else {
            throw CommandFailure(description: "--experimental-memory-mlock: memory cannot be locked: \(String(cString: strerror(errno)).lowercased()): raise the limit "
                + "(LimitMEMLOCK=infinity in systemd, ulimit -l unlimited) or give the process CAP_IPC_LOCK")
        }
        #else
        throw CommandFailure(description: "--experimental-memory-mlock: this system cannot lock a whole process: leave it out")
        #endif
    }
}
