// What nodes, metrics pages and the files of recordings tell may be any number. Sums, differences and products of what the console keeps must not
// overflow, so figures beyond all reason are taken for the bound as they come in: `bounded`.

/// The widest ranges that make sense.
public enum Bounds {
    /// Microseconds since 1970, until 2100.
    public static let microseconds: ClosedRange<Int64> = 0...4_102_444_800_000_000
    /// Thirty years, either way, in microseconds.
    public static let spanMicroseconds: ClosedRange<Int64> = -1_000_000_000_000_000...1_000_000_000_000_000
    /// A million million.
    public static let count: ClosedRange<Int> = 0...1_000_000_000_000
    /// A pebibyte.
    public static let bytes: ClosedRange<Int> = 0...1 << 50
    /// Terms, revisions and positions of the log: more than a cluster reaches in a thousand years, and a thousand times as much still fits.
    public static let index: ClosedRange<UInt64> = 0...1 << 48

    /// What is no number counts as none.
    public static func count(_ value: Double) -> Int { value > 0 ? Int(min(value, Double(count.upperBound))) : 0 }
}

extension Comparable {
    public func clamped(to range: ClosedRange<Self>) -> Self { min(max(self, range.lowerBound), range.upperBound) }
}

extension Moment {
    public var bounded: Moment { Moment(milliseconds: milliseconds.clamped(to: Bounds.microseconds.lowerBound / 1_000...Bounds.microseconds.upperBound / 1_000)) }
}

extension LatencyHistogram {
    /// Bounds that do not ascend are no histogram: then nothing was counted.
    public var bounded: LatencyHistogram {
        guard !boundsMicroseconds.isEmpty, zip(boundsMicroseconds, boundsMicroseconds.dropFirst()).allSatisfy({ $0 < $1 }), boundsMicroseconds[0] >= 0,
              boundsMicroseconds.last! <= Int(Bounds.spanMicroseconds.upperBound), counts.count == boundsMicroseconds.count + 1 else { return LatencyHistogram() }
        var result = self
        result.counts = counts.map { $0.clamped(to: Bounds.count) }
        result.sumMicroseconds = sumMicroseconds.clamped(to: 0...Bounds.spanMicroseconds.upperBound)
        return result
    }
}

extension RaftEvent {
    public var bounded: RaftEvent {
        func span(_ microseconds: Int64) -> Int64 { microseconds.clamped(to: 0...Bounds.spanMicroseconds.upperBound) }
        var result = self
        result.atMicroseconds = atMicroseconds.clamped(to: Bounds.microseconds)
        result.term = term.clamped(to: Bounds.index)
        switch kind {
        case .electionTimeout(let after): result.kind = .electionTimeout(afterMicroseconds: span(after))
        case .diskStuck(let after): result.kind = .diskStuck(afterMicroseconds: span(after))
        case .diskRecovered(let after): result.kind = .diskRecovered(afterMicroseconds: span(after))
        case .elected(let votes, let voters): result.kind = .elected(votes: votes.clamped(to: Bounds.count), voters: voters.clamped(to: Bounds.count))
        case .firstCommit(let index): result.kind = .firstCommit(index: index.clamped(to: Bounds.index))
        case .snapshotInstalled(let index): result.kind = .snapshotInstalled(index: index.clamped(to: Bounds.index))
        case .missed(let count): result.kind = .missed(count.clamped(to: Bounds.count))
        case .leaderConnectionLost, .preVoteAsked, .voteAsked, .voteCast, .voteRefused, .voteReceived, .roleChanged, .leaderChanged, .steppedDown, .transferStarted, .transferAborted,
             .snapshotSent, .peerLost, .peerFound, .membershipChanged: break
        }
        return result
    }
}

extension NodeSample {
    public var bounded: NodeSample {
        func index(_ value: UInt64) -> UInt64 { value.clamped(to: Bounds.index) }
        func count(_ value: Int) -> Int { value.clamped(to: Bounds.count) }
        var result = self
        result.atMicroseconds = atMicroseconds.clamped(to: Bounds.microseconds)
        (result.term, result.commit, result.applied, result.lastIndex, result.durable) = (index(term), index(commit), index(applied), index(lastIndex), index(durable))
        result.timerLeftMicroseconds = timerLeftMicroseconds?.clamped(to: Bounds.spanMicroseconds)
        result.timerLengthMicroseconds = timerLengthMicroseconds?.clamped(to: Bounds.spanMicroseconds)
        result.uncommittedBytes = uncommittedBytes.clamped(to: Bounds.bytes)
        (result.unapplied, result.diskQueue, result.pendingRequests) = (count(unapplied), count(diskQueue), count(pendingRequests))
        for place in peers.indices {
            result.peers[place].match = index(peers[place].match)
            result.peers[place].next = index(peers[place].next)
            result.peers[place].inFlightMessages = count(peers[place].inFlightMessages)
            result.peers[place].inFlightBytes = peers[place].inFlightBytes.clamped(to: Bounds.bytes)
            result.peers[place].roundTripMicroseconds = peers[place].roundTripMicroseconds.map(count)
        }
        result.stages = stages.map { StageLatency(stage: $0.stage, histogram: $0.histogram.bounded) }
        return result
    }
}

extension MetricsSample {
    public var bounded: MetricsSample {
        func count(_ value: Int) -> Int { value.clamped(to: Bounds.count) }
        return MetricsSample(
            node: node, at: at.bounded, spanMilliseconds: spanMilliseconds.clamped(to: 0...Int64(Bounds.count.upperBound)), walFsync: walFsync?.bounded,
            backendCommit: backendCommit?.bounded, peerRoundTrip: peerRoundTrip?.bounded, proposalsCommitted: count(proposalsCommitted), proposalsPending: count(proposalsPending),
            proposalsFailed: count(proposalsFailed), slowApplies: count(slowApplies), leaderChanges: count(leaderChanges))
    }
}

extension MemberState {
    public var bounded: MemberState {
        var result = self
        result.term = term?.clamped(to: Bounds.index)
        result.commit = commit?.clamped(to: Bounds.index)
        result.applied = applied?.clamped(to: Bounds.index)
        result.lastIndex = lastIndex?.clamped(to: Bounds.index)
        result.dbSizeBytes = dbSizeBytes?.clamped(to: 0...Int64(Bounds.bytes.upperBound))
        result.dbSizeInUseBytes = dbSizeInUseBytes?.clamped(to: 0...Int64(Bounds.bytes.upperBound))
        result.latencyMicroseconds = latencyMicroseconds?.clamped(to: Bounds.count)
        result.fsyncMicroseconds = fsyncMicroseconds?.clamped(to: Bounds.count)
        result.startedAt = startedAt?.bounded
        result.sampledAt = sampledAt?.bounded
        switch health {
        case .starting, .up: break
        case .paused(let since): result.health = .paused(since: since.bounded)
        case .isolated(let since): result.health = .isolated(since: since.bounded)
        case .down(let since, let reason): result.health = .down(since: since.bounded, reason: reason)
        }
        return result
    }
}

extension ClusterState {
    /// Each member once: the first that says who it is.
    public var bounded: ClusterState {
        func number(_ value: Int64) -> Int64 { value.clamped(to: -1...Int64(Bounds.index.upperBound)) }
        var result = self
        var seen: Set<UInt64> = []
        result.members = members.filter { seen.insert($0.id).inserted }.map(\.bounded)
        result.revision = revision.map(number)
        result.compactRevision = compactRevision.map(number)
        result.keyCount = keyCount.map(number)
        result.periodMilliseconds = periodMilliseconds.clamped(to: 1...86_400_000)
        if case .lost(let since, let reason) = connection { result.connection = .lost(since: since.bounded, reason: reason) }
        return result
    }
}

extension ClusterEvent {
    public var bounded: ClusterEvent {
        func span(_ milliseconds: Int64) -> Int64 { milliseconds.clamped(to: 0...Bounds.spanMicroseconds.upperBound / 1_000) }
        func index(_ value: UInt64) -> UInt64 { value.clamped(to: Bounds.index) }
        var result = self
        result.at = at.bounded
        switch kind {
        case .elected(let leader, let previous, let fromTerm, let term, let unavailable, let tolerance):
            result.kind = .elected(leader: leader, previous: previous, fromTerm: fromTerm.map(index), term: index(term), unavailableMilliseconds: unavailable.map(span), toleranceMilliseconds: tolerance.map(span))
        case .leaderLost(let previous, let term): result.kind = .leaderLost(previous: previous, term: index(term))
        case .campaign(let member, let term, let isPreVote): result.kind = .campaign(member: member, term: index(term), isPreVote: isPreVote)
        case .memberUp(let member, let after): result.kind = .memberUp(member: member, afterMilliseconds: after.map(span))
        case .leaseExpired(let lease, let keys): result.kind = .leaseExpired(lease: lease, keys: keys.clamped(to: Bounds.count))
        case .memberDown, .paused, .resumed, .isolated, .rejoined, .transferRequested, .alarm, .compacted, .workload, .faultOn, .faultOff, .note: break
        }
        return result
    }
}

extension WorkloadSample {
    public var bounded: WorkloadSample {
        func count(_ value: Int) -> Int { value.clamped(to: Bounds.count) }
        func latency(_ value: Latency) -> Latency {
            Latency(count: count(value.count), p50Microseconds: count(value.p50Microseconds), p99Microseconds: count(value.p99Microseconds), maxMicroseconds: count(value.maxMicroseconds))
        }
        var result = self
        result.at = at.bounded
        result.put = put.map(latency)
        result.read = read.map(latency)
        (result.failed, result.retried) = (count(failed), count(retried))
        result.putBuckets = putBuckets.prefix(WorkloadSample.bucketBoundsMicroseconds.count + 1).map(count)
        result.putHistogram = putHistogram?.bounded
        result.readHistogram = readHistogram?.bounded
        result.slow = slow.map { SlowRequest(at: $0.at.bounded, tookMicroseconds: count($0.tookMicroseconds), operation: $0.operation, key: $0.key, error: $0.error) }
        result.settings.putsPerSecond = settings.putsPerSecond.clamped(to: WorkloadSettings.rateRange)
        result.settings.readsPerSecond = settings.readsPerSecond.clamped(to: WorkloadSettings.rateRange)
        result.settings.clients = settings.clients.clamped(to: WorkloadSettings.clientRange)
        result.settings.valueBytes = settings.valueBytes.clamped(to: WorkloadSettings.valueRange)
        result.settings.keyCount = settings.keyCount.clamped(to: WorkloadSettings.keyRange)
        result.verdict.acknowledgedWrites = count(verdict.acknowledgedWrites)
        result.verdict.confirmedWrites = count(verdict.confirmedWrites)
        result.verdict.checkedReads = count(verdict.checkedReads)
        result.verdict.unknownWrites = count(verdict.unknownWrites)
        return result
    }
}

extension CanaryWrite {
    public var bounded: CanaryWrite {
        CanaryWrite(dueMicroseconds: dueMicroseconds.clamped(to: Bounds.microseconds), tookMicroseconds: tookMicroseconds.clamped(to: 0...Bounds.spanMicroseconds.upperBound),
                    outcome: outcome, revision: revision)
    }
}

extension CanaryCheck {
    public var bounded: CanaryCheck {
        CanaryCheck(acknowledged: acknowledged.clamped(to: Bounds.count), confirmed: confirmed.clamped(to: Bounds.count), lost: lost.clamped(to: Bounds.count), lostRevisions: lostRevisions)
    }
}

extension ActiveFault {
    public var bounded: ActiveFault {
        func figure(_ value: Double) -> Double { value.isFinite ? value.clamped(to: 0...1e9) : 0 }
        var result = self
        result.since = since.bounded
        result.ends = ends?.bounded
        switch fault {
        case .wire(let from, let to, let wire):
            result.fault = .wire(from: from, to: to, WireFault(
                delayMilliseconds: figure(wire.delayMilliseconds), jitterMilliseconds: figure(wire.jitterMilliseconds), lossPercent: figure(wire.lossPercent),
                duplicatePercent: figure(wire.duplicatePercent), bytesPerSecond: wire.bytesPerSecond?.clamped(to: Bounds.bytes)))
        case .disk(let node, .slow(let milliseconds)): result.fault = .disk(node, .slow(milliseconds: milliseconds.clamped(to: Bounds.count)))
        case .clock(let node, .jump(let milliseconds)): result.fault = .clock(node, .jump(milliseconds: milliseconds.clamped(to: -Bounds.count.upperBound...Bounds.count.upperBound)))
        case .clock(let node, .drift(let parts)): result.fault = .clock(node, .drift(partsPerMillion: parts.clamped(to: -Bounds.count.upperBound...Bounds.count.upperBound)))
        case .kill, .stop, .pause, .tornTail, .cut, .isolate, .partition, .disk, .clock: break
        }
        return result
    }
}

extension DataEvent {
    /// What a recording holds; other events are left as they are.
    var bounded: DataEvent {
        switch self {
        case .cluster(let state): .cluster(state.bounded)
        case .events(let events): .events(events.map(\.bounded))
        case .workload(let sample): .workload(sample.bounded)
        case .raft(let events): .raft(events.map(\.bounded))
        case .samples(let samples): .samples(samples.map(\.bounded))
        case .metrics(let samples): .metrics(samples.map(\.bounded))
        case .canary(let writes): .canary(writes.map(\.bounded))
        case .canaryCheck(let check): .canaryCheck(check.bounded)
        case .faults(let faults): .faults(faults.map(\.bounded))
        case .logs(let lines): .logs(lines.map { LogLine(at: $0.at.bounded, node: $0.node, level: $0.level, part: $0.part, text: $0.text) })
        case .scenario(let progress):
            .scenario(ScenarioProgress(name: progress.name, title: progress.title, step: progress.step.clamped(to: Bounds.count), steps: progress.steps.clamped(to: Bounds.count),
                                       caption: progress.caption, waitingFor: progress.waitingFor, state: progress.state))
        default: self
        }
    }
}
