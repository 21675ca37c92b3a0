import Base
import Logging
import NIOCore
import Replica

/// How much history is kept: `--auto-compaction-mode` and `--auto-compaction-retention`.
public enum AutoCompaction: Hashable, Sendable {
    case off
    /// What was current within this time.
    case periodic(TimeSpan)
    /// This many revisions.
    case revisions(Int64)

    /// etcd's formats: a Go duration, or a plain number, which means hours in the mode "periodic" and revisions in the mode "revision"; 0 is off.
    public init(mode: String, retention: String) throws(NodeError) {
        guard mode == "periodic" || mode == "revision" else {
            throw .configuration("unknown auto-compaction-mode \"\(mode)\": expected periodic or revision")
        }
        if let number = Int64(retention), number >= 0 {
            if mode == "revision" {
                self = number == 0 ? .off : .revisions(number)
            } else {
                guard number <= 1_000_000 else { throw .configuration("--auto-compaction-retention \(retention): more hours than there is a use for") }
                self = number == 0 ? .off : .periodic(.seconds(3_600 * number))
            }
            return
        }
        // etcd takes a duration's nanoseconds for revisions here, which is nobody's wish.
        guard mode == "periodic" else { throw .configuration("--auto-compaction-retention \(retention): expected a number of revisions, as the mode is revision") }
        guard let span = TimeSpan(goDuration: retention), span >= .zero else {
            throw .configuration("error parsing CompactionRetention: \"\(retention)\" is no duration; write it as 5m, 1h or 1h30m, or as a number of hours")
        }
        self = span == .zero ? .off : .periodic(span)
    }
}

/// Decides which revision to compact to, and when. etcd's rules: every member notes where the history was, so that a new leader knows it; the leader
/// compacts. Periodic: for the first time after the whole period, then once a period or an hour, whichever is shorter, to what was current a period
/// ago; when that fails, again after a tenth of it. By revisions: every five minutes, unless nothing was written.
struct AutoCompactor {
    private let rule: AutoCompaction
    /// Between two looks.
    let interval: TimeSpan
    /// Where the history was, one entry a look, the oldest first: about a period.
    private var noted: [Revision]
    private var lastSuccess: Instant
    private var hasPassedFirst = false
    private var previous = Revision.zero

    private static let hour = TimeSpan.seconds(3_600)
    /// Looks in a period or an hour.
    private static let looks: Int64 = 10
    private static let revisionInterval = TimeSpan.seconds(300)
    /// Shorter periods than ten times this are for tests; they must not keep the loop busy.
    private static let leastInterval = TimeSpan.milliseconds(10)

    /// nil: there is nothing to decide.
    init?(_ rule: AutoCompaction, at now: Instant, revision: Revision) {
        self.rule = rule
        lastSuccess = now
        noted = [revision]
        switch rule {
        case .off: return nil
        case .periodic(let period):
            interval = max(AutoCompactor.leastInterval, TimeSpan(nanoseconds: min(period, AutoCompactor.hour).nanoseconds / AutoCompactor.looks))
        case .revisions: interval = AutoCompactor.revisionInterval
        }
    }

    /// To be called every `interval`. Returns the revision to compact to; then `done` is to follow, and no look until then.
    mutating func look(at now: Instant, revision: Revision, isLeader: Bool) -> Revision? {
        switch rule {
        case .off: return nil
        case .revisions(let kept):
            guard isLeader, revision.rawValue > kept else { return nil }
            let target = Revision(revision.rawValue - kept)
            return target == previous ? nil : target
        case .periodic(let period):
            defer {
                noted.append(revision)
                let kept = Int(period.nanoseconds / interval.nanoseconds) + 1
                if noted.count > kept { noted.removeFirst(noted.count - kept) }
            }
            let wait = hasPassedFirst ? min(period, AutoCompactor.hour) : period
            guard isLeader, now - lastSuccess >= wait else { return nil }
            hasPassedFirst = true
            return noted[0]
        }
    }

    /// - Parameter succeeded: also when the history had been compacted before.
    mutating func done(_ target: Revision, succeeded: Bool, at now: Instant) {
        guard succeeded else { return }
        previous = target
        lastSuccess = now
    }
}

/// Looks after a member's history while its node runs. Confined to the replica loop, hence @unchecked Sendable.
final class AutoCompactionTimer: @unchecked Sendable {
    private var compactor: AutoCompactor
    private unowned let driver: ReplicaDriver
    private let clock: any NodeClock
    private let logger: Logger
    private var timer: Scheduled<Void>?
    private var isStopped = false

    /// nil when the rule is off. On the loop.
    init?(_ rule: AutoCompaction, driver: ReplicaDriver, clock: any NodeClock, logger: Logger) {
        guard let compactor = AutoCompactor(rule, at: clock.now(), revision: driver.revision) else { return nil }
        self.compactor = compactor
        self.driver = driver
        self.clock = clock
        self.logger = logger
        arm()
    }

    private func arm() {
        guard !isStopped else { return }
        timer = driver.loop.scheduleTask(in: .nanoseconds(max(1, clock.realTime(for: compactor.interval).nanoseconds))) { [weak self] in self?.look() }
    }

    private func look() {
        guard !isStopped else { return }
        guard let target = compactor.look(at: clock.now(), revision: driver.revision, isLeader: driver.isLeader) else { return arm() }
        logger.info("starting auto compaction", metadata: ["revision": "\(target.rawValue)"])
        driver.ask(.compactHistory(target)).whenSuccess { [weak self] answer in self?.finished(target, answer) }
    }

    private func finished(_ target: Revision, _ answer: Answer) {
        guard !isStopped else { return }
        switch answer {
        case .failed(let error) where error != .compacted:
            logger.warning("auto compaction failed", metadata: ["revision": "\(target.rawValue)", "reason": "\(error.message)"])
            compactor.done(target, succeeded: false, at: clock.now())
        default:
            logger.info("auto compaction is done", metadata: ["revision": "\(target.rawValue)"])
            compactor.done(target, succeeded: true, at: clock.now())
        }
        arm()
    }

    func stop() {
        isStopped = true
        timer?.cancel()
        timer = nil
    }
}
