import Base
import Log
import Raft
import Replica
import Store

/// Boots what a crash left, and says what is wrong with it: each member for itself as loaded, then the cluster as it goes on, then all of it once
/// more after a second power cut.
struct CrashExamination {
    struct Image {
        var id: MemberID
        var disk: MemoryDisk
        var stores: SimulatedStores
    }
    /// Draws what the second power cut keeps.
    var generator: SeededGenerator
    private(set) var boots = 0
    private(set) var violations: [Violation] = []

    init(generator: SeededGenerator) { self.generator = generator }

    mutating func examine(_ images: [Image], of origin: CrashCluster) {
        guard let first = round("first boot", images, of: origin) else { return }
        // The second power cut, before anything had the time to settle; every other time it takes all that was not synced.
        let survival = generator.next() & 1 == 0 ? MemoryDisk.Survival.syncedOnly : .chosen
        let left = first.nodes.map { node in
            let disk = node.disk.crash(survival, using: &generator)
            return Image(id: node.id, disk: disk, stores: node.stores.moved(to: disk))
        }
        _ = round("second boot", left, of: first)
    }

    /// nil when something was wrong.
    private mutating func round(_ name: String, _ images: [Image], of origin: CrashCluster) -> CrashCluster? {
        let cluster = CrashCluster(after: origin)
        defer {
            boots += cluster.boots
            for violation in cluster.violations { violations.append(Violation(violation.invariant, "\(name): \(violation.detail)")) }
        }
        for image in images { cluster.add(image.id, image.disk, image.stores, origin[image.id].promises, contacts: origin[image.id].contacts) }
        for node in cluster.nodes {
            do throws(MemberFiles.Fault) {
                try cluster.boot(node)
            } catch .removed where !cluster.history[cluster.history.last].configuration.everyone.contains(node.id) {
                node.isRemoved = true
                continue
            } catch {
                cluster.violated("boots", "member \(node.id) does not start: \(error)")
                return nil
            }
            checkFiles(of: node, in: cluster)
            checkPromises(of: node, in: cluster)
            checkState(of: node, in: cluster)
        }
        guard cluster.violations.isEmpty else { return nil }
        goOn(cluster, since: origin)
        return cluster.violations.isEmpty ? cluster : nil
    }

    // MARK: As loaded

    /// Nothing is left of what was never finished or is not needed any more.
    private func checkFiles(of node: CrashNode, in cluster: CrashCluster) {
        let opened = node.opened!
        let files = (try? node.disk.list(MemberFiles.logDirectory(in: CrashNode.dataDirectory))) ?? []
        if files.count != opened.log.segmentCount || files.contains(where: { !$0.hasSuffix(".log") }) {
            cluster.violated("leftovers", "member \(node.id) has \(opened.log.segmentCount) segments in the files \(files)")
        }
        let stores = (try? node.stores.numbers()) ?? []
        if stores != [opened.storeNumber] { cluster.violated("leftovers", "member \(node.id) uses store \(opened.storeNumber) of \(stores)") }
    }

    private func checkPromises(of node: CrashNode, in cluster: CrashCluster) {
        let restart = node.opened!.restart
        let promises = node.promises
        let history = cluster.history
        func broken(_ detail: String) { cluster.violated("promises", "member \(node.id) \(detail)") }
        if restart.hardState.term < promises.term {
            broken("is back in term \(restart.hardState.term.rawValue) after it took part in term \(promises.term.rawValue)")
        } else if restart.hardState.term == promises.term, promises.vote != .none, restart.hardState.vote != promises.vote {
            broken("voted for \(promises.vote) in term \(promises.term.rawValue) and has forgotten it (\(restart.hardState.vote))")
        }
        let last = restart.entries.last?.index ?? restart.start.index
        // Another leader may have overwritten it with its consent.
        if history.term(at: promises.held.index) == promises.held.term, last < promises.held.index {
            broken("acknowledged entries up to \(promises.held.index.rawValue) and has them up to \(last.rawValue)")
        }
        if restart.applied < promises.stored { broken("stored entries up to \(promises.stored.rawValue) and is back at \(restart.applied.rawValue)") }
        if cluster.nodes.count == 1, cluster.setup.founders.count == 1, last < cluster.acknowledged {
            broken("answered entry \(cluster.acknowledged.rawValue) and has entries up to \(last.rawValue)")
        }
        for entry in restart.entries {
            guard let known = history.entry(entry.index) else {
                broken("has an entry \(entry.index.rawValue) that was never written")
                break
            }
            if known.term == entry.term ? known != entry : entry.index <= max(cluster.acknowledged, promises.stored) {
                broken("has another entry \(entry.index.rawValue) of term \(entry.term.rawValue) than the one written in term \(known.term.rawValue)")
                break
            }
        }
        let members = node.opened!.state.membership.members
        if restart.applied > .zero || node.contacts == nil {
            if members.map(\.id) != restart.configuration.everyone { broken("has members \(members.map(\.id)) and the configuration \(restart.configuration)") }
            for member in members where member.isLearner && restart.configuration.isVoter(member.id) { broken("takes the voter \(member.id) for a learner") }
        }
        if let hash = history[restart.applied].hash, node.opened!.state.stateHash != hash {
            broken("has the state \(node.opened!.state.stateHash) at entry \(restart.applied.rawValue), which was \(hash)")
        }
        // Before its first entry one that joins knows nothing of the cluster.
        if node.contacts == nil || restart.applied > .zero, restart.configuration != history[restart.applied].configuration {
            broken("has configuration \(restart.configuration) at entry \(restart.applied.rawValue), which makes \(history[restart.applied].configuration)")
        }
    }

    /// The store is what the log makes of it, up to the applied entry: no more, no less, and its history too.
    private func checkState(of node: CrashNode, in cluster: CrashCluster) {
        guard let grant = cluster.localRead(node), let replica = node.replica else { return cluster.violated("reads", "member \(node.id) does not read") }
        let applied = replica.progress.applied
        func wrong(_ detail: String) { cluster.violated("state", "member \(node.id) at entry \(applied.rawValue): \(detail)") }
        guard applied <= cluster.history.last else { return wrong("the log ends at \(cluster.history.last.rawValue)") }
        let expected = cluster.history[applied]
        if grant.snapshot.revision.rawValue != expected.revision { return wrong("revision \(grant.snapshot.revision.rawValue) instead of \(expected.revision)") }
        if grant.snapshot.compactRevision.rawValue != expected.compactRevision {
            return wrong("compact revision \(grant.snapshot.compactRevision.rawValue) instead of \(expected.compactRevision)")
        }
        do {
            let reader = try grant.backend.makeReader()
            defer { reader.release() }
            if let difference = try difference(grant.snapshot, .zero, cluster.history.keys(at: expected.revision), reader) { return wrong(difference) }
            // One revision of the past, another one in every examination.
            let oldest = max(expected.compactRevision, 1)
            let old = oldest + Int64(generatorValue(at: applied) % UInt64(expected.revision - oldest + 1))
            if let difference = try difference(grant.snapshot, Revision(old), cluster.history.keys(at: old), reader) {
                return wrong("revision \(old): \(difference)")
            }
        } catch { return wrong("cannot be read: \(error)") }
        guard case .leases(let leases)? = cluster.ask(node, .leases) else { return cluster.violated("reads", "member \(node.id) does not list leases") }
        if leases.map(\.rawValue).sorted() != expected.leases { wrong("leases \(leases.map(\.rawValue)) instead of \(expected.leases)") }
    }

    private func generatorValue(at index: LogIndex) -> UInt64 {
        var copy = generator.split("revision \(index.rawValue)")
        return copy.next()
    }

    private func difference(_ snapshot: StoreSnapshot, _ revision: Revision, _ expected: [SeenKeyValue], _ reader: any BackendReader) throws -> String? {
        let found = try snapshot.range(RangeRequest(key: [0], rangeEnd: [0], revision: revision), reader: reader).kvs.keyValues
        for (kv, expected) in zip(found, expected) {
            let seen = SeenKeyValue(key: kv.key, value: kv.value, createRevision: kv.createRevision.rawValue, modRevision: kv.modRevision.rawValue,
                                    version: kv.version, lease: kv.lease.rawValue)
            if seen != expected {
                return "key \(String(decoding: kv.key, as: UTF8.self)) is of revision \(seen.modRevision), not \(expected.modRevision)"
            }
        }
        return found.count == expected.count ? nil : "\(found.count) keys instead of \(expected.count)"
    }

    // MARK: Going on

    private func goOn(_ cluster: CrashCluster, since origin: CrashCluster) {
        // Whoever has most of the log, so that no time goes by.
        let configuration = cluster.history[cluster.history.last].configuration
        guard let candidate = cluster.nodes.filter({ $0.isRunning && configuration.isVoter($0.id) }).max(by: { lastPosition($0) < lastPosition($1) }) else {
            return cluster.violated("goes-on", "no voter of \(configuration) is left")
        }
        candidate.inbox.append(.campaign)
        let request = PutRequest(key: Array("after the crash".utf8), value: Array("\(cluster.history.last.rawValue)".utf8))
        var writer = ByteWriter()
        request.encode(into: &writer)
        switch cluster.ask(candidate, .propose(.put, body: writer.bytes, cost: request.quotaCost)) {
        case .encoded: break
        case .failed(let error): return cluster.violated("goes-on", "a write fails: \(error)")
        default:
            if let failed = cluster.nodes.first(where: { $0.failure != nil }) { return cluster.violated("goes-on", "member \(failed.id) fails: \(failed.failure!)") }
            return cluster.violated("goes-on", "no answer to a write")
        }
        if let lost = firstLost(of: origin, in: cluster) { return cluster.violated("acknowledged", "entry \(lost.rawValue) was acknowledged and is gone") }
        let members = cluster.history[cluster.acknowledged].configuration.everyone
        func isLevel() -> Bool { cluster.nodes.allSatisfy { !members.contains($0.id) || ($0.replica?.progress.applied ?? .zero) >= cluster.acknowledged } }
        guard cluster.run(within: .seconds(30), until: { isLevel() || cluster.hasFailed }), isLevel() else {
            let applied = cluster.nodes.map { "\($0.id): \($0.replica?.progress.applied.rawValue ?? 0)" }
            return cluster.violated("goes-on", "not all members reach entry \(cluster.acknowledged.rawValue): \(applied)")
        }
        for node in cluster.nodes where node.isRunning { checkState(of: node, in: cluster) }
    }

    private func lastPosition(_ node: CrashNode) -> LogIndex { node.opened!.restart.entries.last?.index ?? node.opened!.restart.start.index }

    /// Whether what was acknowledged before the crash is still what the log says.
    private func firstLost(of origin: CrashCluster, in cluster: CrashCluster) -> LogIndex? {
        guard origin.acknowledged > .zero else { return nil }
        return origin.history.entry(origin.acknowledged) == cluster.history.entry(origin.acknowledged) ? nil : origin.acknowledged
    }
}

