import Base
import Client
import Foundation
import Logging
import Processes
import Server
import Simulation

/// The members as processes, what was done to them, and what became of them.
actor Cluster {
    struct Member {
        let name: String
        let clientPort: Int
        let peerPort: Int
        let advertisedPeerPort: Int
        var id = MemberID.none
        var process: ChildProcess?
        var lives = 0
        /// The disk fails now, or did in this life: then the process may end by itself.
        var hasHadBrokenDisk = false
        var disk = DiskTreatment()
        /// Somebody has killed it and will start it again.
        var isDown = false
        var isPaused = false
    }

    nonisolated let options: TortureOptions
    nonisolated let settings: Settings
    nonisolated let network: PeerNetwork
    nonisolated let endpoints: [Endpoint]
    private(set) var members: [Member]
    /// Ends that nobody asked for.
    private(set) var unexpected: [String] = []
    private var isOver = false
    private let asker: EtcdClient

    init(_ options: TortureOptions, _ settings: Settings) throws {
        self.options = options
        self.settings = settings
        let ports = try LoopbackPorts.free(3 * options.nodeCount, seed: options.seed)
        members = (0..<options.nodeCount).map {
            Member(name: "n\($0 + 1)", clientPort: ports[3 * $0], peerPort: ports[3 * $0 + 1], advertisedPeerPort: ports[3 * $0 + 2])
        }
        network = PeerNetwork(members.map { PeerNetwork.Place(port: $0.advertisedPeerPort, memberPort: $0.peerPort) })
        endpoints = try members.map { try Endpoint("127.0.0.1:\($0.clientPort)") }
        asker = try Cluster.client(endpoints)
    }

    /// - Parameter history: hears what the library finds wrong with a server and puts right by itself.
    nonisolated static func client(_ endpoints: [Endpoint], telling history: HistoryRecorder? = nil) throws -> EtcdClient {
        var configuration = ClientConfiguration(endpoints: endpoints)
        if let history { configuration.logger = Logger(label: "torture") { _ in WarningListener(history: history) } }
        configuration.dialTimeout = .milliseconds(500)
        configuration.maximumBackoff = .milliseconds(250)
        configuration.keepAliveInterval = .seconds(5)
        configuration.keepAliveTimeout = .seconds(2)
        return try EtcdClient(configuration: configuration)
    }

    nonisolated func dataDirectory(_ index: Int) -> String { options.directory + "/n\(index + 1)" }
    nonisolated func logFile(_ index: Int) -> String { options.directory + "/n\(index + 1).log" }

    private func command(_ index: Int) -> [String] {
        let member = members[index]
        let cluster = members.map { "\($0.name)=http://127.0.0.1:\($0.advertisedPeerPort)" }.joined(separator: ",")
        var flags = ["--name", member.name, "--data-dir", dataDirectory(index),
                     "--listen-client-urls", "http://127.0.0.1:\(member.clientPort)", "--advertise-client-urls", "http://127.0.0.1:\(member.clientPort)",
                     "--listen-peer-urls", "http://127.0.0.1:\(member.peerPort)", "--initial-advertise-peer-urls", "http://127.0.0.1:\(member.advertisedPeerPort)",
                     "--initial-cluster", cluster, "--initial-cluster-token", "torture",
                     "--heartbeat-interval", "\(settings.heartbeatMilliseconds)", "--election-timeout", "\(settings.electionMilliseconds)",
                     "--snapshot-count", "\(settings.snapshotCount)"]
        switch options.engine {
        case .quarterdeck:
            flags += ["--experimental-snapshot-catchup-entries", "\(settings.catchUpEntries)", "--supervised", "\(getpid())"]
            return [options.binary, "serve"] + flags
        case .etcd:
            return [options.binary, "bound", "--parent", "\(getpid())", "--", options.etcdBinary ?? "etcd"] + flags
                + ["--initial-cluster-state", "new", "--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn"]
        }
    }

    // MARK: Lives

    func startAll() async throws {
        try await network.start()
        for index in members.indices { try await start(index) }
    }

    /// Starts a member that does not run; returns when its process does.
    func start(_ index: Int) async throws {
        guard !isOver, members[index].process?.end != nil || members[index].process == nil else { return }
        let log = try MemberLog(logFile(index))
        let process = try await ChildProcess.start(command(index), environment: ChildProcess.nodeEnvironment, takesInput: true, line: log.write, ended: { _, _ in })
        members[index].process = process
        members[index].lives += 1
        members[index].isDown = false
        members[index].isPaused = false
        members[index].hasHadBrokenDisk = members[index].disk.failure != nil
        network.hasStarted(index, as: process.pid)
        sendPlan(index)
        Task { await self.ended(index, process, await process.ended()) }
    }

    private func ended(_ index: Int, _ process: ChildProcess, _ end: ChildProcess.End) {
        guard !isOver, members[index].process === process, !members[index].isDown, !members[index].hasHadBrokenDisk else { return }
        unexpected.append("\(members[index].name) ended by itself: \(end.text); its log: \(lastLine(index))")
    }

    private func lastLine(_ index: Int) -> String {
        let text = (try? String(contentsOfFile: logFile(index), encoding: .utf8)) ?? ""
        return text.split(separator: "\n").last.map { String($0.prefix(300)) } ?? ""
    }

    func kill(_ index: Int) async {
        guard let process = members[index].process, process.end == nil else { return }
        members[index].isDown = true
        process.signal(SIGKILL)
        _ = await process.ended()
    }

    func pause(_ index: Int) async {
        guard let process = members[index].process, process.end == nil else { return }
        process.signal(SIGSTOP)
        members[index].isPaused = true
        _ = await condition(withinSeconds: 2, everyMilliseconds: 1) { process.isStopped || process.end != nil }
    }

    func resume(_ index: Int) {
        members[index].isPaused = false
        members[index].process?.signal(SIGCONT)
    }

    func setDisk(_ index: Int, _ treatment: DiskTreatment) {
        members[index].disk = treatment
        if treatment.failure != nil { members[index].hasHadBrokenDisk = true }
        sendPlan(index)
    }

    private struct Order: Encodable { var plan: FaultPlan }

    /// A `serve` process that is supervised waits for a first order before it starts.
    private func sendPlan(_ index: Int) {
        guard options.engine == .quarterdeck, let process = members[index].process else { return }
        var plan = FaultPlan()
        // Its own number is known once it has answered; until then its disk is sound.
        if members[index].id != .none { plan[disk: members[index].id.rawValue] = members[index].disk }
        guard let line = try? JSONEncoder().encode(Order(plan: plan)) else { preconditionFailure("a plan has only numbers and text") }
        process.send(Array(line))
    }

    // MARK: What they say

    func status(_ index: Int, milliseconds: Int64 = 500) async -> MemberStatus? {
        let status = try? await asker.status(of: endpoints[index], options: CallOptions(timeout: .milliseconds(milliseconds)))
        if let status, members[index].id == .none { members[index].id = status.header.memberID }
        return status
    }

    func statuses() async -> [MemberStatus?] {
        await withTaskGroup(of: (Int, MemberStatus?).self) { group in
            for index in members.indices { group.addTask { (index, await self.status(index)) } }
            var all = [MemberStatus?](repeating: nil, count: members.count)
            for await (index, status) in group { all[index] = status }
            return all
        }
    }

    /// Who leads in the newest term that anybody knows of.
    func leader() async -> Int? {
        let all = await statuses()
        guard let newest = all.compactMap({ $0 }).filter({ $0.leader != .none }).max(by: { $0.raftTerm < $1.raftTerm }) else { return nil }
        return members.firstIndex { $0.id == newest.leader }
    }

    func waitForLeader(withinSeconds seconds: Double) async -> Bool {
        await condition(withinSeconds: seconds) {
            let all = await statuses()
            return all.allSatisfy { $0 != nil && $0!.leader != .none }
        }
    }

    /// Everything works again, and whoever does not run is started.
    func heal() async throws {
        await network.heal()
        for index in members.indices {
            resume(index)
            setDisk(index, DiskTreatment())
        }
        for index in members.indices {
            // What broke with its disk ends in its own time, or lives on.
            if members[index].hasHadBrokenDisk { _ = await condition(withinSeconds: 1) { members[index].process?.end != nil } }
            try await start(index)
        }
    }

    func ids() -> [MemberID] { members.map(\.id) }
    func runs(_ index: Int) -> Bool { members[index].process.map { $0.end == nil } ?? false }
    func lives() -> Int { members.map(\.lives).reduce(0, +) }

    func end() async {
        isOver = true
        for member in members { member.process?.signal(SIGKILL) }
        for member in members { _ = await member.process?.ended() }
        await asker.close()
        await network.stop()
    }
}

/// Ports of 127.0.0.1 outside the range that the system hands to outgoing connections: a member that is started again must find its port as
/// it left it.
enum LoopbackPorts {
    static func free(_ count: Int, seed: UInt64) throws -> [Int] {
        var generator = SeededGenerator(seed: seed &+ UInt64(getpid()))
        let first = Int.random(in: 0..<12_000, using: &generator)
        let found = (0..<12_000).lazy.map { 20_000 + (first + $0) % 12_000 }.filter(LoopbackPort.isFree).prefix(count)
        guard found.count == count else { throw TortureError("no free ports on 127.0.0.1") }
        return Array(found)
    }
}

/// Where a member's lines go. Written by the thread that reads them.
private final class MemberLog: Sendable {
    private let file: Int32

    /// Appends, since a member has several lives.
    init(_ path: String) throws {
        file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw TortureError("\(path): \(String(cString: strerror(errno)))") }
    }

    deinit { close(file) }

    func write(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = bytes.withUnsafeBytes { Foundation.write(file, $0.baseAddress, $0.count) }
    }
}

/// Warnings of the client library are about servers: each is a broken promise.
private struct WarningListener: LogHandler {
    let history: HistoryRecorder
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.warning

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { history.report(Violation("client-warning", "\(event.message) \(event.metadata ?? [:])")) }
}
