import Base
import Foundation
import GRPC
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Raft
import Replica
import Testing
@testable import Server

/// A real embedded cluster on free ports, with a client of its own for each node; gone at the end of `run`.
final class FaultTestBed: Sendable {
    let cluster: EmbeddedCluster
    let ids: [MemberID]
    let log = CapturedLog()
    private let notes = NIOLockedValueBox<[EmbeddedCluster.Event]>([])
    private let clients = NIOLockedValueBox<[MemberID: TestClient]>([:])
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let directory: String

    static func run(_ count: Int = 3, snapshotCount: UInt64 = 10_000, autoCompaction: AutoCompaction = .off,
                    options change: (inout ReplicaOptions) -> Void = { _ in }, _ body: (FaultTestBed) async throws -> Void) async throws {
        let bed = try await FaultTestBed(count, snapshotCount: snapshotCount, autoCompaction: autoCompaction, change)
        var failure: (any Error)?
        do {
            try await bed.cluster.start()
            try await body(bed)
        } catch { failure = error }
        bed.cluster.obey(FaultPlan())
        await bed.cluster.abandon()
        try? await bed.group.shutdownGracefully()
        try? FileManager.default.removeItem(atPath: bed.directory)
        if let failure { throw failure }
    }

    private init(_ count: Int, snapshotCount: UInt64, autoCompaction: AutoCompaction, _ change: (inout ReplicaOptions) -> Void) async throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("quarterdeck-\(UUID().uuidString)").path
        let ports = try await FaultTestBed.freePorts(2 * count, group)
        var options = ReplicaOptions()
        options.snapshotCount = snapshotCount
        options.raft.keptEntries = Int(min(snapshotCount, 5000))
        change(&options)
        let log = log
        cluster = EmbeddedCluster(ports: (0..<count).map { (client: ports[2 * $0], peer: ports[2 * $0 + 1]) }, dataDirectory: directory, options: options, autoCompaction: autoCompaction,
                                  logger: Logger(label: "test") { _ in log })
        ids = cluster.nodes.map(\.id)
        cluster.observe { [notes] event in notes.withLockedValue { $0.append(event) } }
    }

    /// All are held before the first is given back.
    static func freePorts(_ count: Int, _ group: any EventLoopGroup) async throws -> [Int] {
        var holders: [any Channel] = []
        for _ in 0..<count { holders.append(try await ServerBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()) }
        let ports = holders.map { $0.localAddress!.port! }
        for holder in holders { try await holder.close().get() }
        return ports
    }

    struct Late: Error, CustomStringConvertible { var description: String }

    func wait(_ what: String, seconds: Int = 30, _ condition: () async throws -> Bool) async throws {
        guard try await eventually(within: .seconds(seconds), condition) else { throw Late(description: "not within \(seconds) s: \(what)") }
    }

    // MARK: What nodes say

    func status(_ id: MemberID) -> ReplicaStatus? { cluster.node(id)?.status }
    func revision(_ id: MemberID) -> Int64 { status(id)?.revision.rawValue ?? 0 }

    /// The one that all of `among` follow; waits for it.
    func leader(among: [MemberID]? = nil) async throws -> MemberID {
        let among = among ?? ids
        var found = MemberID.none
        try await wait("a leader that \(among) follow") {
            let views = among.map { self.status($0)?.raft }
            guard let leader = views[0]?.leader, leader != .none, among.contains(leader) else { return false }
            found = leader
            let term = self.status(leader)!.raft.hardState.term
            return self.status(leader)!.raft.role == .leader && views.allSatisfy { $0?.leader == leader && $0?.hardState.term == term }
        }
        return found
    }

    func followers(of leader: MemberID) -> [MemberID] { ids.filter { $0 != leader } }

    /// Notes of a node since `from`, an earlier count.
    func notes(_ id: MemberID, since from: Int = 0) -> [EmbeddedCluster.Event] { notes.withLockedValue { $0[from...].filter { $0.node == id } } }
    var noteCount: Int { notes.withLockedValue { $0.count } }

    func hasTimedOut(_ id: MemberID, since from: Int) -> Bool {
        notes(id, since: from).contains { if case .raft(.electionTimeout) = $0.note { true } else { false } }
    }

    // MARK: Clients

    func client(_ id: MemberID) async throws -> TestClient {
        if let known = clients.withLockedValue({ $0[id] }), known.channel.isActive { return known }
        let client = try await TestClient.connect(cluster.nodes.first { $0.id == id }!.clientURL.port, group: group)
        clients.withLockedValue { $0[id] = client }
        return client
    }

    /// One attempt.
    func put(_ key: String, _ value: String = "v", at id: MemberID, timeout: TimeSpan = .seconds(30)) async throws -> CallStatus {
        await (try await client(id)).call(.put, putRequest(key, value), timeout: timeout).status
    }

    /// Again until it is acknowledged.
    func write(_ key: String, _ value: String = "v", at id: MemberID) async throws {
        try await wait("\(key) written at \(id)") { try await self.put(key, value, at: id, timeout: .seconds(1)).code == .ok }
    }

    /// How long a put takes that is acknowledged at the first attempt.
    func latency(at id: MemberID, value: String = "v") async throws -> Duration {
        var took = Duration.zero
        try await wait("a put at \(id)") {
            let began = ContinuousClock.now
            guard try await self.put("latency", value, at: id).code == .ok else { return false }
            took = ContinuousClock.now - began
            return true
        }
        return took
    }

    /// What the node itself holds.
    func local(_ key: String, at id: MemberID) async throws -> String? {
        let answer = await (try await client(id)).call(.range, rangeRequest(key, serializable: true))
        return answer.messages.first.flatMap { Fields($0).message(2)?.text(5) }
    }

    /// All nodes hold the same, up to the newest revision of any of them.
    func waitForAgreement() async throws {
        try await wait("all nodes at the same revision, not \(ids.map(revision))") {
            let revisions = self.ids.map(self.revision)
            return revisions.allSatisfy { $0 == revisions[0] && $0 > 0 }
        }
    }
}

/// Keeps what nodes log.
final class CapturedLog: LogHandler, Sendable {
    private let lines = NIOLockedValueBox<[String]>([])
    var all: [String] { lines.withLockedValue { $0 } }
    var metadata: Logger.Metadata { get { [:] } set {} }
    var logLevel: Logger.Level { get { .info } set {} }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? { get { nil } set {} }
    func log(event: LogEvent) { lines.withLockedValue { $0.append("\(event.message)") } }
}
