import Base
import Client
import Foundation
import Synchronization
import UI

/// Who is told by `ObserverFeed`, besides the screen.
protocol ObserverSink: AnyObject, Sendable {
    /// Where the member is now; nil: nowhere any more.
    func endpoint(of member: UInt64) -> Endpoint?
    func streamOpened(_ member: UInt64)
    func streamEnded(_ member: UInt64, _ error: any Error)
    /// At once, in order for each member.
    func heard(_ events: [RaftEvent])
    /// The latest states, each of another member, some times a second.
    func heard(_ samples: [NodeSample])
}

/// What our own nodes tell of their consensus: one stream for each member, taken up again whenever it breaks. Events go on at once, states
/// together, twenty times a second at most.
final class ObserverFeed: Sendable {
    private struct Pending {
        var samples: [NodeSample] = []
        var isFlushDue = false
    }

    /// After a broken stream, doubling: a node that was started again is heard soon, and a dead one costs next to nothing.
    private static let shortestWaitMilliseconds: Int64 = 50
    private static let longestWaitMilliseconds: Int64 = 500
    private static let sampleIntervalMilliseconds: Int64 = 50

    private let client: EtcdClient
    private let mailbox: Mailbox
    private let pending = Mutex(Pending())

    init(client: EtcdClient, mailbox: Mailbox) {
        self.client = client
        self.mailbox = mailbox
    }

    /// Follows one member until it has no endpoint any more, says that it does not tell, or the task is cancelled.
    func follow(_ member: UInt64, for sink: any ObserverSink) async {
        var position: ObserverPosition?
        var wait = ObserverFeed.shortestWaitMilliseconds
        while !Task.isCancelled, let endpoint = sink.endpoint(of: member) {
            var clock = ClockCorrection()
            var isOpen = false
            do {
                for try await update in client.observe(endpoint, after: position) {
                    // Another member has taken the address: its own stream tells of it.
                    guard update.member.rawValue == member else { break }
                    position = update.position
                    if !isOpen {
                        isOpen = true
                        wait = ObserverFeed.shortestWaitMilliseconds
                        sink.streamOpened(member)
                    }
                    take(update, &clock, sink)
                }
            } catch {
                guard !Task.isCancelled else { return }
                flush(sink)
                sink.streamEnded(member, error)
                if (error as? EtcdError)?.isUnimplemented == true { return }
            }
            try? await Task.sleep(for: .milliseconds(wait))
            wait = min(wait * 2, ObserverFeed.longestWaitMilliseconds)
        }
    }

    private func take(_ update: MemberObservation, _ clock: inout ClockCorrection, _ sink: any ObserverSink) {
        let node = update.member.rawValue
        var correction: Int64 = 0
        if let time = update.state?.time ?? update.events.last?.time { correction = clock.correction(of: time, receivedMicroseconds: Clock.nowMicroseconds()) }
        var events = update.events.compactMap { RaftEvent($0, node: node, correction: correction) }
        if update.missed > 0 {
            let at = events.first?.atMicroseconds ?? Clock.nowMicroseconds()
            let term = events.first?.term ?? update.state?.term.rawValue ?? 0
            events.insert(RaftEvent(node: node, atMicroseconds: at, term: term, kind: .missed(update.missed)), at: 0)
        }
        if !events.isEmpty {
            // States that came before go before.
            flush(sink)
            mailbox.post(.raft(events))
            sink.heard(events)
        }
        if let state = update.state { hold(NodeSample(state, node: node, correction: correction), sink) }
    }

    // MARK: States, together

    private func hold(_ sample: NodeSample, _ sink: any ObserverSink) {
        let mustWait = pending.withLock { pending in
            if let place = pending.samples.firstIndex(where: { $0.node == sample.node }) {
                var sample = sample
                sample.stages = NodeSample.sum(pending.samples[place].stages, sample.stages)
                pending.samples[place] = sample
            } else {
                pending.samples.append(sample)
            }
            defer { pending.isFlushDue = true }
            return !pending.isFlushDue
        }
        guard mustWait else { return }
        Task.detached { [weak self, weak sink] in
            try? await Task.sleep(for: .milliseconds(ObserverFeed.sampleIntervalMilliseconds))
            guard let self else { return }
            self.pending.withLock { $0.isFlushDue = false }
            if let sink { self.flush(sink) }
        }
    }

    private func flush(_ sink: any ObserverSink) {
        let samples = pending.withLock { pending in
            defer { pending.samples = [] }
            return pending.samples
        }
        guard !samples.isEmpty else { return }
        mailbox.post(.samples(samples))
        sink.heard(samples)
    }
}

/// Sets the times of a member right whose wall clock is wrong. What counts as wrong is more than 100 ms; below that, its own time is better
/// than the time of arrival.
struct ClockCorrection {
    private static let toleranceMicroseconds: Int64 = 100_000
    /// An update may be late by this much when little is known yet, since this process was busy.
    private static let latenessMicroseconds: Int64 = 1_000_000
    private static let spanMicroseconds: Int64 = 3_000_000

    /// Arrival minus the member's monotonic clock, of the last seconds: the smallest is the least delayed.
    private var offsets: [(at: Int64, offset: Int64)] = []

    /// Microseconds to add to the wall times of an update that was sent at `time`.
    mutating func correction(of time: ObservedTime, receivedMicroseconds received: Int64) -> Int64 {
        let monotonic = time.monotonicNanoseconds / 1_000
        let wall = time.wallMicroseconds.clamped(to: Bounds.microseconds)
        offsets.removeAll { received - $0.at > ClockCorrection.spanMicroseconds }
        offsets.append((received, received - monotonic))
        let difference = received - wall
        guard abs(difference) > ClockCorrection.toleranceMicroseconds else { return 0 }
        if offsets.count < 3, difference > 0, difference < ClockCorrection.latenessMicroseconds { return 0 }
        // Late, or from a clock that is wrong: the monotonic clock tells which.
        let error = monotonic + offsets.lazy.map(\.offset).min()! - wall
        return abs(error) > ClockCorrection.toleranceMicroseconds ? error : 0
    }
}

// MARK: From the client's types to the UI's

extension MemberState.Role {
    init(_ role: ObservedRole) {
        self = switch role {
        case .follower: .follower
        case .preCandidate: .preCandidate
        case .candidate: .candidate
        case .leader: .leader
        case .learner: .learner
        }
    }
}

extension RaftEvent {
    /// nil for what is not drawn.
    init?(_ event: ObservedEvent, node: UInt64, correction: Int64) {
        let kind: Kind
        switch event.kind {
        case .electionTimeout(let after): kind = .electionTimeout(afterMicroseconds: after.nanoseconds / 1_000)
        case .leaderConnectionLost(let leader): kind = .leaderConnectionLost(leader: leader.rawValue)
        case .preVoteAsked: kind = .preVoteAsked
        case .voteAsked: kind = .voteAsked
        case .voteCast(let candidate, let isPreVote): kind = .voteCast(for: candidate.rawValue, isPreVote: isPreVote)
        case .voteRefused(let candidate, let isPreVote, let reason): kind = .voteRefused(to: candidate.rawValue, isPreVote: isPreVote, reason: reason)
        case .voteReceived(let voter, let isGranted, let isPreVote): kind = .voteReceived(from: voter.rawValue, isGranted: isGranted, isPreVote: isPreVote)
        case .roleChanged(let role): kind = .roleChanged(MemberState.Role(role))
        case .leaderChanged(let leader): kind = .leaderChanged(leader: leader.rawValue)
        case .elected(let votes, let voters): kind = .elected(votes: votes, voters: voters)
        case .steppedDown(let reason): kind = .steppedDown(reason: reason)
        case .firstCommit(let index): kind = .firstCommit(index: index.rawValue)
        case .transferStarted(let heir): kind = .transferStarted(to: heir.rawValue)
        case .transferAborted(let heir): kind = .transferAborted(to: heir.rawValue)
        // A stream that failed is begun again, which is told.
        case .snapshotSent(_, .failed): return nil
        case .snapshotSent(let peer, let phase): kind = .snapshotSent(to: peer.rawValue, isComplete: phase == .complete)
        case .snapshotInstalled(let index): kind = .snapshotInstalled(index: index.rawValue)
        case .peerLost(let peer): kind = .peerLost(peer.rawValue)
        case .peerFound(let peer): kind = .peerFound(peer.rawValue)
        case .membershipChanged(let text): kind = .membershipChanged(text)
        case .diskStuck(let after): kind = .diskStuck(afterMicroseconds: after.nanoseconds / 1_000)
        case .diskRecovered(let after): kind = .diskRecovered(afterMicroseconds: after.nanoseconds / 1_000)
        }
        self = RaftEvent(node: node, atMicroseconds: event.time.wallMicroseconds.clamped(to: Bounds.microseconds) + correction, term: event.term.rawValue, kind: kind).bounded
    }
}

extension NodeSample {
    init(_ state: ObservedState, node: UInt64, correction: Int64) {
        self = NodeSample(node: node, atMicroseconds: state.time.wallMicroseconds.clamped(to: Bounds.microseconds) + correction, role: MemberState.Role(state.role), term: state.term.rawValue,
                  vote: state.vote.rawValue, leader: state.leader.rawValue, commit: state.commit.rawValue, applied: state.applied.rawValue,
                  lastIndex: state.last.rawValue, durable: state.durable.rawValue, timerLeftMicroseconds: state.timerLeft.map { $0.nanoseconds / 1_000 },
                  timerLengthMicroseconds: state.timerLength.map { $0.nanoseconds / 1_000 }, uncommittedBytes: state.uncommittedBytes,
                  unapplied: state.unappliedEntries, diskQueue: state.diskQueue, pendingRequests: state.pendingRequests,
                  peers: state.peers.map(Peer.init), stages: state.stages.map(StageLatency.init)).bounded
    }

    /// Both, by stage.
    static func sum(_ earlier: [StageLatency], _ later: [StageLatency]) -> [StageLatency] {
        guard !earlier.isEmpty else { return later }
        var sum = earlier
        for latency in later {
            if let place = sum.firstIndex(where: { $0.stage == latency.stage }) { sum[place].histogram.add(latency.histogram) } else { sum.append(latency) }
        }
        return sum
    }
}

extension NodeSample.Peer {
    init(_ peer: ObservedState.Peer) {
        let phase: Phase = switch peer.phase {
        case .probe: .probe
        case .replicate: .replicate
        case .snapshot: .snapshot
        }
        self.init(id: peer.id.rawValue, phase: phase, match: peer.match.rawValue, next: peer.next.rawValue, inFlightMessages: peer.inFlightMessages,
                  inFlightBytes: peer.inFlightBytes, roundTripMicroseconds: peer.roundTrip.map { Int($0.nanoseconds / 1_000) }, isActive: peer.isActive)
    }
}

extension StageLatency {
    init(_ latency: ObservedState.StageLatency) {
        let stage: Stage = switch latency.stage {
        case .queue: .queue
        case .logWrite: .logWrite
        case .replicate: .replicate
        case .quorumWait: .quorumWait
        case .apply: .apply
        case .backendCommit: .backendCommit
        }
        // The buckets of the service are those of `fineBounds`.
        var histogram = LatencyHistogram()
        for (bucket, count) in latency.buckets {
            let place = min(max(0, bucket), histogram.counts.count - 1)
            histogram.counts[place] = (histogram.counts[place] + count.clamped(to: Bounds.count)).clamped(to: Bounds.count)
        }
        histogram.sumMicroseconds = latency.sumMicroseconds
        self.init(stage: stage, histogram: histogram.bounded)
    }
}
