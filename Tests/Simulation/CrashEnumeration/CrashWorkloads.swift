import Base
import Log
import Raft
import Replica
import Store

extension CrashEnumeration {
    /// What the members do while their disks are watched.
    public enum Workload: String, CaseIterable, Sendable {
        /// A lone member from its founding on: puts, deletes, transactions, leases, and the log's segments filling up.
        case plainWrites
        /// A lone member whose log and history are compacted again and again, with two restarts on the way.
        case compaction
        /// Three members; one is cut off until the log no longer reaches it, and gets a snapshot, twice.
        case snapshotInstall
        /// Three members become five and three again: one joins as a learner and is promoted, one joins as a voter, a follower and the leader go.
        case membershipChange

        var memberCount: Int {
            switch self {
            case .plainWrites, .compaction: 1
            case .snapshotInstall, .membershipChange: 3
            }
        }

        var setup: CrashCluster.Setup {
            let founders = (1...memberCount).map { Member(id: MemberID(UInt64($0)), peerURLs: ["http://m\($0)"]) }
            var options = ReplicaOptions()
            var log = LogOptions(segmentSizeBytes: 8 << 10)
            switch self {
            case .plainWrites, .membershipChange: break
            case .compaction:
                options.snapshotCount = 8
                options.raft.keptEntries = 3
                log.segmentSizeBytes = 4 << 10
            case .snapshotInstall:
                options.snapshotCount = 8
                options.raft.keptEntries = 3
                log.segmentSizeBytes = 4 << 10
            }
            return CrashCluster.Setup(founders: founders, options: options, log: log)
        }
    }
}

/// A member failed, or did not answer: the script is over.
struct ScriptStopped: Error {}

/// Runs a workload on a cluster. `watch` is told of every member that gets a new disk.
struct CrashScript {
    let cluster: CrashCluster
    let watch: (CrashNode) -> Void
    private var generator = SeededGenerator(seed: 0x5c417)
    private var writes = 0

    init(_ cluster: CrashCluster, watch: @escaping (CrashNode) -> Void) {
        self.cluster = cluster
        self.watch = watch
    }

    mutating func perform(_ workload: CrashEnumeration.Workload) throws(ScriptStopped) {
        for member in cluster.setup.founders {
            let disk = MemoryDisk()
            watch(cluster.add(member.id, disk, SimulatedStores(disk: disk, dataDirectory: CrashNode.dataDirectory)))
        }
        for node in cluster.nodes { try boot(node) }
        cluster.nodes[0].inbox.append(.campaign)
        switch workload {
        case .plainWrites: try plainWrites()
        case .compaction: try compaction()
        case .snapshotInstall: try snapshotInstall()
        case .membershipChange: try membershipChange()
        }
        try pause()
    }

    private mutating func plainWrites() throws(ScriptStopped) {
        let node = cluster.nodes[0]
        try grant(LeaseID(77), on: node)
        for round in 0..<20 {
            for _ in 0..<3 { try put(on: node) }
            switch round % 4 {
            case 0: try delete("k\(round % 5)", "k\(round % 5 + 3)", on: node)
            case 1: try putTogether(on: node)
            case 2: try put(on: node, lease: LeaseID(77))
            default: try pause()
            }
        }
        try revoke(LeaseID(77), on: node)
        for _ in 0..<4 { try put(on: node) }
    }

    private mutating func compaction() throws(ScriptStopped) {
        var node = cluster.nodes[0]
        for round in 0..<4 {
            for _ in 0..<7 { try put(on: node) }
            try delete("k1", "k3", on: node)
            try compact(on: node)
            try pause()
            try pause()
            if round == 1 {
                node.stop()
                try boot(node)
                node.inbox.append(.campaign)
            }
            if round == 2 {
                let disk = node.disk.crash(.syncedOnly, using: &generator)
                node = cluster.replace(node, disk, node.stores.moved(to: disk))
                watch(node)
                try boot(node)
                node.inbox.append(.campaign)
            }
        }
        for _ in 0..<3 { try put(on: node) }
    }

    private mutating func snapshotInstall() throws(ScriptStopped) {
        for _ in 0..<5 { try put(on: cluster.nodes[0]) }
        let behind = cluster.nodes[2]
        for round in 0..<2 {
            cluster.isolated = [behind.id]
            for _ in 0..<8 { try put(on: cluster.nodes[round]) }
            try compact(on: cluster.nodes[0])
            try pause()
            for _ in 0..<8 { try put(on: cluster.nodes[0]) }
            try pause()
            cluster.isolated = []
            try reach(behind)
            try put(on: behind)
            try reach(behind)
            if round == 0 {
                behind.stop()
                try boot(behind)
                try reach(behind)
            }
        }
    }

    private mutating func membershipChange() throws(ScriptStopped) {
        for _ in 0..<2 { try put(on: cluster.nodes[0]) }
        // Time for everybody to say its name: without it the cluster takes no changes.
        try pause()
        let leader = cluster.nodes[0]
        let learner = try join(Member(id: MemberID(4), peerURLs: ["http://m4"], isLearner: true), asking: leader)
        try put(on: leader)
        try reach(learner)
        try change(.promote(learner.id), asking: leader)
        let voter = try join(Member(id: MemberID(5), peerURLs: ["http://m5"]), asking: leader)
        try put(on: voter)
        try change(.update(MemberID(2), peerURLs: ["http://n2"]), asking: voter)
        let gone = cluster[MemberID(3)]
        try change(.remove(gone.id), asking: leader)
        try pause()
        cluster.discard(gone)
        try put(on: leader)
        try change(.remove(leader.id), asking: voter)
        try pause()
        cluster.discard(leader)
        for _ in 0..<2 { try put(on: voter) }
        try reach(learner)
        try reach(cluster[MemberID(2)])
    }

    /// Adds a member to the cluster and starts it.
    private func join(_ member: Member, asking node: CrashNode) throws(ScriptStopped) -> CrashNode {
        let members = try change(.add(member), asking: node)
        let disk = MemoryDisk()
        let joined = cluster.add(member.id, disk, SimulatedStores(disk: disk, dataDirectory: CrashNode.dataDirectory), contacts: members)
        watch(joined)
        try boot(joined)
        return joined
    }

    /// Asks until the leader finds that the time has come.
    @discardableResult
    private func change(_ request: MembershipRequest, asking node: CrashNode) throws(ScriptStopped) -> [Member] {
        for _ in 0..<40 {
            switch cluster.ask(node, .changeMembership(request)) {
            case .membershipChanged(_, let members): return members
            case .failed: try pause()
            default: throw ScriptStopped()
            }
        }
        cluster.violated("goes-on", "\(request) is refused for ever")
        throw ScriptStopped()
    }

    // MARK: Steps

    private func boot(_ node: CrashNode) throws(ScriptStopped) {
        do throws(MemberFiles.Fault) {
            try cluster.boot(node)
        } catch {
            node.fail("\(error)")
            throw ScriptStopped()
        }
    }

    /// Time for the store to be written and the log to be compacted.
    private func pause() throws(ScriptStopped) {
        cluster.run(within: .milliseconds(400)) { cluster.hasFailed }
        if cluster.hasFailed { throw ScriptStopped() }
    }

    private func reach(_ node: CrashNode) throws(ScriptStopped) {
        let isThere = cluster.run(within: .seconds(30)) { cluster.hasFailed || (node.replica?.progress.applied ?? .zero) >= cluster.acknowledged }
        guard !cluster.hasFailed else { throw ScriptStopped() }
        if !isThere {
            cluster.violated("goes-on", "member \(node.id) stays behind entry \(cluster.acknowledged.rawValue)")
            throw ScriptStopped()
        }
    }

    private func ask(_ node: CrashNode, _ request: Request) throws(ScriptStopped) {
        guard let answer = cluster.ask(node, request) else { throw ScriptStopped() }
        if case .failed(let error) = answer {
            cluster.violated("goes-on", "a request fails: \(error)")
            throw ScriptStopped()
        }
    }

    private func propose(_ kind: Command.Kind, cost: Int, on node: CrashNode, _ body: (inout ByteWriter) -> Void) throws(ScriptStopped) {
        var writer = ByteWriter()
        body(&writer)
        try ask(node, .propose(kind, body: writer.bytes, cost: cost))
    }

    private mutating func nextPut(lease: LeaseID = .none) -> PutRequest {
        writes += 1
        let size = [20, 90, 400, 700][Int(generator.next() % 4)]
        return PutRequest(key: Array("k\(generator.next() % 9)".utf8), value: Array("\(writes) ".utf8) + [UInt8](repeating: UInt8(truncatingIfNeeded: writes), count: size),
                          lease: lease)
    }

    private mutating func put(on node: CrashNode, lease: LeaseID = .none) throws(ScriptStopped) {
        let request = nextPut(lease: lease)
        try propose(.put, cost: request.quotaCost, on: node) { request.encode(into: &$0) }
    }

    private mutating func putTogether(on node: CrashNode) throws(ScriptStopped) {
        var request = TxnRequest()
        var first = nextPut()
        var second = nextPut()
        first.key = Array("k4".utf8)
        second.key = Array("k5".utf8)
        request.success = [.put(first), .put(second)]
        try propose(.txn, cost: request.quotaCost, on: node) { request.encode(into: &$0) }
    }

    private func delete(_ from: String, _ to: String, on node: CrashNode) throws(ScriptStopped) {
        let request = DeleteRangeRequest(key: Array(from.utf8), rangeEnd: Array(to.utf8))
        try propose(.deleteRange, cost: 0, on: node) { request.encode(into: &$0) }
    }

    private func compact(on node: CrashNode) throws(ScriptStopped) {
        let request = CompactionRequest(revision: Revision(cluster.history[cluster.acknowledged].revision - 2))
        try propose(.compaction, cost: 0, on: node) { request.encode(into: &$0) }
    }

    private func grant(_ lease: LeaseID, on node: CrashNode) throws(ScriptStopped) { try ask(node, .leaseGrant(lease: lease, ttlSeconds: 3600)) }

    private func revoke(_ lease: LeaseID, on node: CrashNode) throws(ScriptStopped) {
        try propose(.leaseRevoke, cost: 0, on: node) { $0.writeField(1, lease.rawValue) }
    }
}
