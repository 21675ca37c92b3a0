import Foundation
import NIOConcurrencyHelpers

/// Runs `body` on a thread of its own, for calls that may block for long: in a shared pool they would hold others up.
func onOwnThread<T: Sendable>(_ name: String, _ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        let thread = Thread { continuation.resume(with: Result { try body() }) }
        thread.name = name
        thread.stackSize = 8 << 20
        thread.start()
    }
}

/// A thread of its own for calls that block (disk), taking everything that waits as one batch.
final class WorkerThread<Job: Sendable>: @unchecked Sendable {
    // @unchecked: `state` is only touched under `condition`'s lock.
    private let condition = NSCondition()
    private var jobs: [Job] = []
    private var isStopping = false
    private var dropsWaiting = false
    private var hasEnded = false

    /// `work` runs on the thread with every job that waits, in order. Returning false ends the thread.
    init(name: String, work: @escaping @Sendable ([Job]) -> Bool, end: @escaping @Sendable () -> Void) {
        let thread = Thread { [self] in
            run(work)
            end()
            condition.lock()
            hasEnded = true
            condition.broadcast()
            condition.unlock()
        }
        thread.name = name
        thread.stackSize = 1 << 20
        thread.start()
    }

    private func run(_ work: ([Job]) -> Bool) {
        var batch: [Job] = []
        while true {
            condition.lock()
            while jobs.isEmpty && !isStopping { condition.wait() }
            if dropsWaiting || (jobs.isEmpty && isStopping) {
                condition.unlock()
                return
            }
            swap(&batch, &jobs)
            condition.unlock()
            guard work(batch) else { return }
            batch.removeAll(keepingCapacity: true)
        }
    }

    func submit(_ job: Job) {
        condition.lock()
        let wasEmpty = jobs.isEmpty
        jobs.append(job)
        if wasEmpty { condition.signal() }
        condition.unlock()
    }

    /// Ends the thread after what waits is done, or without doing it (`abandoning`); blocks until it has ended.
    func stop(abandoning: Bool) {
        condition.lock()
        isStopping = true
        if abandoning { dropsWaiting = true }
        condition.broadcast()
        while !hasEnded { condition.wait() }
        condition.unlock()
    }
}
