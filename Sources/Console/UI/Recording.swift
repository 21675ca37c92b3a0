/// A recorded session, as the lines of its file: a header, then everything heard, each with its time. The app reads and writes the
/// file; this is what stands in it.
public struct RecordingHeader: Hashable, Codable, Sendable {
    public static let formatName = "quarterdeck recording"
    public static let newestVersion = 1

    public var format: String
    public var version: Int
    /// What wrote it: `quarterdeck 0.1.0`.
    public var program: String
    public var start: Moment
    /// The cluster as it was then.
    public var cluster: ClusterState

    public init(program: String, start: Moment, cluster: ClusterState) {
        format = RecordingHeader.formatName
        version = RecordingHeader.newestVersion
        self.program = program
        self.start = start
        self.cluster = cluster
    }
}

/// Something heard, and when. A line is `{"t":MILLISECONDS,"KIND":...}`.
public struct RecordedEvent: Sendable {
    public var at: Moment
    public var event: DataEvent

    public init(at: Moment, event: DataEvent) {
        self.at = at
        self.event = event
    }

    /// What belongs into a recording: what was heard of the cluster, not the answers to what a person asked for.
    public static func belongs(_ event: DataEvent) -> Bool { kind(of: event) != nil }

    private enum Kind: String, CodingKey {
        case t, cluster, events, workload, raft, samples, metrics, canary, canaryOn, canaryCheck, faults, faultSupport, logs, scenario
    }

    private static func kind(of event: DataEvent) -> Kind? {
        switch event {
        case .cluster: .cluster
        case .events: .events
        case .workload: .workload
        case .raft: .raft
        case .samples: .samples
        case .metrics: .metrics
        case .canary: .canary
        case .isCanaryOn: .canaryOn
        case .canaryCheck: .canaryCheck
        case .faults: .faults
        case .faultSupport: .faultSupport
        case .logs: .logs
        case .scenario: .scenario
        default: nil
        }
    }
}

extension RecordedEvent: Codable {
    public init(from decoder: any Decoder) throws {
        let line = try decoder.container(keyedBy: Kind.self)
        at = Moment(milliseconds: try line.decode(Int64.self, forKey: .t)).bounded
        // A kind that a later version may add is nothing to this one.
        guard let kind = line.allKeys.first(where: { $0 != .t }) else {
            event = .cluster(ClusterState(name: "", kind: .attached))
            throw DecodingError.dataCorrupted(.init(codingPath: [], debugDescription: "no known kind"))
        }
        let event: DataEvent = switch kind {
        case .cluster: .cluster(try line.decode(ClusterState.self, forKey: kind))
        case .events: .events(try line.decode([ClusterEvent].self, forKey: kind))
        case .workload: .workload(try line.decode(WorkloadSample.self, forKey: kind))
        case .raft: .raft(try line.decode([RaftEvent].self, forKey: kind))
        case .samples: .samples(try line.decode([NodeSample].self, forKey: kind))
        case .metrics: .metrics(try line.decode([MetricsSample].self, forKey: kind))
        case .canary: .canary(try line.decode([CompactWrite].self, forKey: kind).map(\.write))
        case .canaryOn: .isCanaryOn(try line.decode(Bool.self, forKey: kind))
        case .canaryCheck: .canaryCheck(try line.decode(CanaryCheck.self, forKey: kind))
        case .faults: .faults(try line.decode([ActiveFault].self, forKey: kind))
        case .faultSupport: .faultSupport(try line.decode(FaultSupport.self, forKey: kind))
        case .logs: .logs(try line.decode([LogLine].self, forKey: kind))
        case .scenario: .scenario(try line.decode(ScenarioProgress.self, forKey: kind))
        case .t: preconditionFailure("not a kind")
        }
        // A file may have come from anywhere.
        self.event = event.bounded
    }

    public func encode(to encoder: any Encoder) throws {
        var line = encoder.container(keyedBy: Kind.self)
        try line.encode(at.milliseconds, forKey: .t)
        guard let kind = RecordedEvent.kind(of: event) else { preconditionFailure("\(event) is not recorded") }
        switch event {
        case .cluster(let state): try line.encode(state, forKey: kind)
        case .events(let events): try line.encode(events, forKey: kind)
        case .workload(let sample): try line.encode(sample, forKey: kind)
        case .raft(let events): try line.encode(events, forKey: kind)
        case .samples(let samples): try line.encode(samples, forKey: kind)
        case .metrics(let samples): try line.encode(samples, forKey: kind)
        case .canary(let writes): try line.encode(writes.map(CompactWrite.init), forKey: kind)
        case .isCanaryOn(let isOn): try line.encode(isOn, forKey: kind)
        case .canaryCheck(let check): try line.encode(check, forKey: kind)
        case .faults(let faults): try line.encode(faults, forKey: kind)
        case .faultSupport(let support): try line.encode(support, forKey: kind)
        case .logs(let lines): try line.encode(lines, forKey: kind)
        case .scenario(let progress): try line.encode(progress, forKey: kind)
        default: break
        }
    }
}

/// Fifty a second are worth a short form: `[due, took, outcome, revision]`.
private struct CompactWrite: Codable {
    var write: CanaryWrite

    init(_ write: CanaryWrite) { self.write = write }

    init(from decoder: any Decoder) throws {
        var list = try decoder.unkeyedContainer()
        let due = try list.decode(Int64.self), took = try list.decode(Int64.self), code = try list.decode(Int.self), revision = try list.decode(Int64.self)
        guard (0...2).contains(code) else { throw DecodingError.dataCorruptedError(in: list, debugDescription: "outcome \(code)") }
        write = CanaryWrite(dueMicroseconds: due, tookMicroseconds: took, outcome: [.acknowledged, .retried, .failed][code], revision: revision)
    }

    func encode(to encoder: any Encoder) throws {
        var list = encoder.unkeyedContainer()
        try list.encode(write.dueMicroseconds)
        try list.encode(write.tookMicroseconds)
        try list.encode(write.outcome == .acknowledged ? 0 : write.outcome == .retried ? 1 : 2)
        try list.encode(write.revision)
    }
}

/// Most buckets are empty and most histograms have our own bounds: `{"s":sum,"n":[bucket,count, ...]}`.
extension LatencyHistogram {
    private enum Key: String, CodingKey { case bounds = "b", sum = "s", counts = "n" }

    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: Key.self)
        self.init(boundsMicroseconds: try values.decodeIfPresent([Int].self, forKey: .bounds) ?? LatencyHistogram.fineBounds)
        sumMicroseconds = try values.decode(Int64.self, forKey: .sum)
        let pairs = try values.decode([Int].self, forKey: .counts)
        for index in stride(from: 0, to: pairs.count - 1, by: 2) where counts.indices.contains(pairs[index]) { counts[pairs[index]] = pairs[index + 1] }
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: Key.self)
        if boundsMicroseconds != LatencyHistogram.fineBounds { try values.encode(boundsMicroseconds, forKey: .bounds) }
        try values.encode(sumMicroseconds, forKey: .sum)
        try values.encode(counts.enumerated().filter { $0.element != 0 }.flatMap { [$0.offset, $0.element] }, forKey: .counts)
    }
}

/// A stretch of a recording, to be heard at the recorded times at once.
public struct Playback: Sendable {
    public var events: ArraySlice<RecordedEvent>
    /// Forget everything heard and begin with this: the first stretch, and after going back.
    public var restart: RecordingHeader?
    /// The recording's time after it. While a recording is replayed nothing else moves the model's clock: what was heard is heard when
    /// it was, however late it is delivered.
    public var until: Moment?

    public init(events: ArraySlice<RecordedEvent>, until: Moment? = nil, restart: RecordingHeader? = nil) {
        self.events = events
        self.until = until
        self.restart = restart
    }
}
