import Foundation
import Synchronization
import UI

/// Where everything but the keyboard reaches the console's thread: any thread posts, the console's thread takes all at once. One
/// byte in a pipe wakes it, however many posts there were since it last looked.
final class Mailbox: Sendable {
    private struct State {
        var events: [DataEvent] = []
        /// Place of a waiting `.cluster`: only the newest state is worth drawing.
        var clusterIndex: Int?
        var isWoken = false
    }

    private let state = Mutex(State())
    private let taps = Mutex<[(name: String, listener: @Sendable (DataEvent) -> Void)]>([])
    /// Readable while something waits.
    let descriptor: Int32
    private let writingEnd: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0, "no pipe: errno \(errno)")
        for end in ends {
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
        }
        (descriptor, writingEnd) = (ends[0], ends[1])
    }

    deinit {
        close(descriptor)
        close(writingEnd)
    }

    /// Hears everything that is posted from now on, on whichever thread posts it, and must return at once. nil: the tap of that name hears
    /// no longer.
    func tap(_ name: String, _ listener: (@Sendable (DataEvent) -> Void)?) {
        taps.withLock { taps in
            taps.removeAll { $0.name == name }
            if let listener { taps.append((name, listener)) }
        }
    }

    func post(_ event: DataEvent) {
        for tap in taps.withLock({ $0 }) { tap.listener(event) }
        let mustWake = state.withLock { state in
            if case .cluster = event {
                if let index = state.clusterIndex {
                    state.events[index] = event
                    return false
                }
                state.clusterIndex = state.events.count
            }
            state.events.append(event)
            defer { state.isWoken = true }
            return !state.isWoken
        }
        if mustWake { wake() }
    }

    /// Everything posted since the last call, in order.
    func take() -> [DataEvent] {
        var buffer = (UInt64(0), UInt64(0))
        _ = withUnsafeMutableBytes(of: &buffer) { read(descriptor, $0.baseAddress, $0.count) }
        return state.withLock { state in
            defer { state = State() }
            return state.events
        }
    }

    /// Returns when the console's thread keeps up: a stream that is faster than it waits here, and the server behind it.
    func room() async {
        while state.withLock({ $0.events.count > Mailbox.backlogLimit }), !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(10))
        }
    }

    /// Posts that may wait before streams are held up; two seconds' worth of frames.
    private static let backlogLimit = 64

    private func wake() {
        var byte: UInt8 = 1
        _ = write(writingEnd, &byte, 1)
    }
}

/// Carries out what the UI asks for. The console's thread calls it and never waits: answers come through the mailbox.
protocol CommandRunner: AnyObject, Sendable {
    /// The first frame is on the screen: connect, start nodes.
    func start()
    func perform(_ command: Command)
    /// Ends everything that was started. Must be quick (200 ms) and must not throw.
    func stop() async
    /// The last moment before the process dies at once: removes what must not stay behind.
    func abandon()

    /// The clock that the console goes by, and how long to wait until it shows `moment`. A replay has one of its own.
    func now() -> Moment
    func nanoseconds(until moment: Moment) -> Int64
}

extension CommandRunner {
    func now() -> Moment { Clock.now() }
    func nanoseconds(until moment: Moment) -> Int64 { max(0, moment - Clock.now()) * 1_000_000 }
}

/// The clocks. Everything that the UI sees is wall-clock time; pacing uses the monotonic one.
enum Clock {
    static func now() -> Moment {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Moment(milliseconds: Int64(time.tv_sec) * 1_000 + Int64(time.tv_nsec) / 1_000_000)
    }

    static func nowMicroseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1_000
    }

    static func monotonicNanoseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }

    static func microseconds(since start: Int64) -> Int { Int((monotonicNanoseconds() - start) / 1_000) }

    /// Seconds east of UTC, now and here.
    static func timeZoneOffsetSeconds() -> Int {
        var seconds = time(nil)
        var parts = tm()
        localtime_r(&seconds, &parts)
        return parts.tm_gmtoff
    }
}
