import Foundation
import Synchronization
import UI

/// Writes what the console hears to a file, a line of JSON for each thing, for `quarterdeck replay`. It listens all the time and keeps
/// the newest of what a recording must begin with; lines are made only while it records.
///
/// Any thread tells it something and is done at once: encoding and writing happen on a queue of its own, four times a second.
final class SessionRecorder: Sendable {
    private struct State {
        var buffer: [RecordedEvent] = []
        var dropped = 0
        var isRecording = false
        // What a recording begins with.
        var cluster: ClusterState?
        var faults: [ActiveFault] = []
        var faultSupport: FaultSupport?
        var isCanaryOn = false
        var scenario: ScenarioProgress?
        var samples: [UInt64: NodeSample] = [:]
        // What was written last, to leave out what says nothing new.
        var writtenCluster: (state: ClusterState, at: Moment)?
        var writtenSamples: [UInt64: NodeSample] = [:]
    }

    /// Confined to `queue`.
    private final class Output: @unchecked Sendable {
        var file: Int32 = -1
        var path = ""
        var written = 0
        var timer: (any DispatchSourceTimer)?
        let encoder = JSONEncoder()
    }

    /// Things waiting to be written; more than a stalled disk should hold in memory.
    static let bufferLimit = 20_000
    /// A day of a busy cluster; then the recording ends by itself.
    static let sizeLimitBytes = 1_000_000_000
    private static let flushMilliseconds = 250
    /// A state of the cluster in which only figures moved is written this often.
    private static let figuresMilliseconds: Int64 = 1_000

    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "recorder")
    private let output = Output()
    private let program: String
    /// Tells the console; must not come back here at once.
    private let tell: @Sendable (DataEvent) -> Void

    init(program: String, tell: @escaping @Sendable (DataEvent) -> Void) {
        self.program = program
        self.tell = tell
        output.encoder.outputFormatting = [.withoutEscapingSlashes]
    }

    // MARK: Hearing

    func hear(_ event: DataEvent, at now: Moment) {
        guard RecordedEvent.belongs(event) else { return }
        state.withLock { state in
            var kept: DataEvent? = event
            switch event {
            case .cluster(let cluster):
                state.cluster = cluster
                if let last = state.writtenCluster, now - last.at < SessionRecorder.figuresMilliseconds, SessionRecorder.differsInFiguresOnly(cluster, last.state) { kept = nil }
                if kept != nil { state.writtenCluster = (cluster, now) }
            case .faults(let faults): state.faults = faults
            case .faultSupport(let support): state.faultSupport = support
            case .isCanaryOn(let isOn): state.isCanaryOn = isOn
            case .scenario(let progress): state.scenario = progress
            case .samples(let samples):
                var news: [NodeSample] = []
                for sample in samples {
                    state.samples[sample.node] = sample
                    if let last = state.writtenSamples[sample.node], !SessionRecorder.isNews(sample, after: last) { continue }
                    state.writtenSamples[sample.node] = sample
                    news.append(sample)
                }
                kept = news.isEmpty ? nil : .samples(news)
            default: break
            }
            guard state.isRecording, let kept else { return }
            guard state.buffer.count < SessionRecorder.bufferLimit else {
                state.dropped += 1
                return
            }
            state.buffer.append(RecordedEvent(at: now, event: kept))
        }
    }

    private static func differsInFiguresOnly(_ a: ClusterState, _ b: ClusterState) -> Bool {
        func plain(_ state: ClusterState) -> ClusterState {
            var state = state
            state.revision = nil
            state.keyCount = nil
            for index in state.members.indices {
                let member = state.members[index]
                state.members[index] = MemberState(id: member.id, name: member.name, endpoint: member.endpoint, role: member.role, health: member.health)
                state.members[index].term = member.term
                state.members[index].startedAt = member.startedAt
            }
            return state
        }
        return plain(a) == plain(b)
    }

    /// Another state, stage latencies, a second later, or any time while no leader is known: then the timers matter.
    private static func isNews(_ sample: NodeSample, after last: NodeSample) -> Bool {
        if sample.leader == 0 || !sample.stages.isEmpty || sample.atMicroseconds - last.atMicroseconds >= 1_000_000 { return true }
        return sample.role != last.role || sample.term != last.term || sample.leader != last.leader || sample.vote != last.vote || sample.commit < last.commit
    }

    // MARK: Recording

    /// Begins a file; it must not exist yet.
    func begin(_ path: String, at now: Moment) throws(FileFailure) {
        let full = Paths.expanded(path)
        end()
        let file = open(full, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw FileFailure(path: full, number: errno) }
        let header = state.withLock { state -> RecordingHeader in
            let cluster = state.cluster ?? ClusterState(name: "cluster", kind: .playground)
            state.isRecording = true
            state.dropped = 0
            state.buffer = []
            func first(_ event: DataEvent) { state.buffer.append(RecordedEvent(at: now, event: event)) }
            first(.cluster(cluster))
            if let support = state.faultSupport { first(.faultSupport(support)) }
            if !state.faults.isEmpty { first(.faults(state.faults)) }
            if state.isCanaryOn { first(.isCanaryOn(true)) }
            if let scenario = state.scenario { first(.scenario(scenario)) }
            if !state.samples.isEmpty { first(.samples(state.samples.values.sorted { $0.node < $1.node })) }
            state.writtenCluster = (cluster, now)
            return RecordingHeader(program: program, start: now, cluster: cluster)
        }
        let failure = queue.sync { () -> FileFailure? in
            output.file = file
            output.path = full
            output.written = 0
            do throws(FileFailure) {
                try write((try? output.encoder.encode(header)) ?? Data())
            } catch {
                close()
                return error
            }
            let timer = DispatchSource.makeTimerSource(queue: queue)
            timer.schedule(deadline: .now() + .milliseconds(SessionRecorder.flushMilliseconds), repeating: .milliseconds(SessionRecorder.flushMilliseconds))
            timer.setEventHandler { [weak self] in self?.flush() }
            timer.resume()
            output.timer = timer
            return nil
        }
        if let failure {
            state.withLock { $0.isRecording = false }
            throw failure
        }
        tell(.recording(path: Paths.abbreviated(full)))
    }

    /// Ends the recording with everything heard so far in the file. Returns its path and size; nil when none ran.
    @discardableResult
    func end() -> (path: String, bytes: Int)? {
        guard state.withLock({ state in
            defer { state.isRecording = false }
            return state.isRecording
        }) else { return nil }
        let result = queue.sync { () -> (String, Int)? in
            flush()
            guard output.file >= 0 else { return nil }
            defer { close() }
            return (output.path, output.written)
        }
        tell(.recording(path: nil))
        return result.map { (path: $0.0, bytes: $0.1) }
    }

    // MARK: On the queue

    private func flush() {
        guard output.file >= 0 else { return }
        let (events, dropped) = state.withLock { state -> ([RecordedEvent], Int) in
            defer {
                state.buffer = []
                state.dropped = 0
            }
            return (state.buffer, state.dropped)
        }
        var data = Data()
        for event in events {
            guard let line = try? output.encoder.encode(event) else { continue }
            data.append(line)
            data.append(0x0a)
        }
        do throws(FileFailure) {
            if !data.isEmpty { try write(data, isLine: false) }
        } catch {
            stopBecause("recording ended: \(error)")
            return
        }
        if dropped > 0 { tell(.notice("recording: \(dropped) things were heard faster than the disk takes them and are missing", isBad: true)) }
        if output.written > SessionRecorder.sizeLimitBytes { stopBecause("recording ended at \(output.written / 1_000_000) MB") }
    }

    private func stopBecause(_ reason: String) {
        close()
        state.withLock { state in
            state.isRecording = false
            state.buffer = []
        }
        tell(.notice(reason, isBad: true))
        tell(.recording(path: nil))
    }

    private func close() {
        output.timer?.cancel()
        output.timer = nil
        if output.file >= 0 { Glibc.close(output.file) }
        output.file = -1
    }

    private func write(_ data: Data, isLine: Bool = true) throws(FileFailure) {
        var data = data
        if isLine { data.append(0x0a) }
        var offset = 0
        while offset < data.count {
            let n = data.withUnsafeBytes { Glibc.write(output.file, $0.baseAddress! + offset, data.count - offset) }
            if n < 0 && errno == EINTR { continue }
            guard n > 0 else { throw FileFailure(path: output.path, number: errno) }
            offset += n
        }
        output.written += data.count
    }
}
