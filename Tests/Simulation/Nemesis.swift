import Auth
import Base
import Log
import Raft
import Replica
import Store

/// Brings trouble: one fault after the other for a while, then heals everything and demands that the cluster recovers.
///
/// A fault never takes more than the cluster can bear for good: destroyed data is limited to a minority of the voters, and made good by replacing
/// the member. Everything else may hit everybody at once.
final class Nemesis {
    private let dials: Dials
    private var generator: SeededGenerator
    private let kinds: [Dials.Fault]
    /// What ends each fault that is in force, by its number.
    private var undoings: [Int: () -> Void] = [:]
    private var nextFault = 1
    private var nextStrike = 0
    private(set) var isTrouble = false
    private var phase = 0
    private var isFinishing = false
    /// The last rest brought about what it had to.
    private(set) var isFinished = false
    private var nextToken: UInt64 = 1 << 62
    private var replies: [UInt64: (Answer) -> Void] = [:]
    /// What a rest must bring about.
    private var goal: Goal?
    /// An image taken earlier, to be put back.
    private var images: [Int: Image] = [:]
    private var convalescent: (node: SimulatedNode, commit: UInt64)?
    /// Machines for which a member was asked for.
    private var joining: Set<Int> = []
    private var nextMember: UInt64 = 0
    /// Until then a removal that was asked for may still be done.
    private var removesUntil: Moment = 0
    private var ambush = Ambush()

    private struct Image {
        var id: MemberID
        var disk: MemoryDisk
        var stores: SimulatedStores
        var durable: ShadowLog
        /// Was being written, and may be on it.
        var inFlight: [LogJob]
        var lowestRevision: Int64
    }

    private struct Goal {
        var began: Moment
        var deadline: Moment
        var successes: Int
        var commit: UInt64
    }

    init(_ dials: Dials, _ generator: SeededGenerator) {
        self.dials = dials
        self.generator = generator
        // Those that are dials of the network or the clocks work by themselves.
        let passive: Set<Dials.Fault> = [.loss, .duplicates, .reordering, .drift]
        kinds = Dials.Fault.allCases.filter { dials.faults.contains($0) && !passive.contains($0) }
    }

    /// Messages that arrive in the wrong order or twice, or from a member that has forgotten, may be refused.
    var toleratesBadMessages: Bool { !dials.keepsOrder || dials.faults.contains(.duplicates) || dials.faults.contains(.oldImage) }

    private func chance(_ percent: UInt64) -> Bool { generator.next() % 100 < percent }
    private func span(around mean: TimeSpan) -> Int64 {
        let share = Double(generator.next() >> 11) / Double(1 << 53)
        return max(1_000_000, Int64(Double(mean.nanoseconds) * 2 * share))
    }
    private func pick<T>(_ choices: [T]) -> T? { choices.isEmpty ? nil : choices[Int(generator.next() % UInt64(choices.count))] }

    func begin(_ simulation: Simulation) {
        nextPhase(simulation, after: dials.options.raft.electionTimeout.nanoseconds * 3)
    }

    private func nextPhase(_ simulation: Simulation, after delay: Int64) {
        phase += 1
        simulation.schedule(.phase(number: phase), after: delay)
    }

    /// The run's end: a last rest, without trouble after it.
    func finish(_ simulation: Simulation) {
        isFinishing = true
        if isTrouble || goal == nil { rest(simulation) }
    }

    // MARK: Trouble and rest

    func changePhase(_ number: Int, in simulation: Simulation) {
        guard number == phase else { return }
        if let goal, simulation.violation == nil {
            if let failure = missing(goal, simulation) {
                guard simulation.time >= goal.deadline else { return nextPhase(simulation, after: 20_000_000) }
                return simulation.fail(Violation("liveness", "\(seconds(simulation.time - goal.began)) s after everything healed: \(failure)"))
            }
            self.goal = nil
            simulation.statistics.rests += 1
            simulation.checkpoint()
            guard simulation.violation == nil else { return }
            // Sometimes the peace lasts long enough for every lease to run out.
            if !isFinishing, chance(20), !dials.faults.isEmpty {
                simulation.world.setStable(since: simulation.time)
                return nextPhase(simulation, after: 30_000_000_000)
            }
        } else if simulation.violation == nil, !isTrouble {
            simulation.checkpoint()
            guard simulation.violation == nil else { return }
        }
        simulation.world.setStable(since: nil)
        if isFinishing {
            isFinished = true
        } else if isTrouble {
            rest(simulation)
        } else if !dials.faults.isEmpty {
            isTrouble = true
            simulation.network.lossPerMille = dials.lossPerMille
            simulation.network.duplicatePerMille = dials.duplicatePerMille
            nextStrike += 1
            simulation.schedule(.nemesis(number: nextStrike), after: span(around: dials.faultEvery))
            nextPhase(simulation, after: span(around: dials.troubleLasts))
        } else {
            // Nothing is to go wrong; rests check that nothing did.
            setGoal(simulation)
            nextPhase(simulation, after: dials.troubleLasts.nanoseconds / 2)
        }
    }

    private func rest(_ simulation: Simulation) {
        isTrouble = false
        ambush = Ambush()
        images.removeAll()
        healAll(simulation)
        setGoal(simulation)
        nextPhase(simulation, after: 50_000_000)
    }

    private func setGoal(_ simulation: Simulation) {
        goal = Goal(began: simulation.time, deadline: simulation.time + patience, successes: simulation.statistics.acknowledged + simulation.statistics.denied, commit: simulation.invariants.ledger.commit)
    }

    /// Until everybody agrees again after everything healed: elections, and each member brought up to date over a slow network and disk.
    var patience: Int64 {
        dials.options.raft.electionTimeout.nanoseconds * 15 + 30_000_000_000 + dials.latency.upperBound * 200 + dials.syncTime.upperBound * 200 + dials.commitTime.upperBound * 40
    }

    private func missing(_ goal: Goal, _ simulation: Simulation) -> String? {
        let members = simulation.nodes.filter { $0.isMember && !$0.isLost }
        for node in simulation.nodes where !node.isMember && node.process != nil { return "n\(node.number) was removed and still runs" }
        for node in members where node.process == nil { return "n\(node.number) does not run" }
        let leaders = members.filter { $0.process!.seen.role == .leader }
        guard let leader = leaders.max(by: { $0.process!.seen.term < $1.process!.seen.term }) else { return "no leader" }
        // That one may not is an answer too.
        let answers = simulation.statistics.acknowledged + simulation.statistics.denied - goal.successes
        if answers < min(dials.clients, 3) { return "clients get no answers (\(answers))" }
        for node in members where node.process!.seen.applied < max(goal.commit, 1) || node.process!.seen.term != leader.process!.seen.term {
            return "n\(node.number) is behind: applied \(node.process!.seen.applied) of \(goal.commit), term \(node.process!.seen.term) of \(leader.process!.seen.term)"
        }
        return nil
    }

    private func healAll(_ simulation: Simulation) {
        simulation.trace?.add(simulation, "everything heals")
        for number in undoings.keys.sorted() { undo(number, in: simulation) }
        simulation.network.lossPerMille = 0
        simulation.network.duplicatePerMille = 0
        for node in simulation.nodes where node.isMember && !node.isLost {
            node.slowness = 1
            node.stuckUntil = 0
            node.logStuckUntil = 0
            node.disk.faults = []
            node.disk.capacityBytes = nil
            simulation.setPaused(node, false)
            if node.process == nil { simulation.schedule(.start(node), after: Int64(generator.next() % 1_000_000_000)) }
        }
    }

    // MARK: Faults

    func strike(_ number: Int, in simulation: Simulation) {
        guard isTrouble, number == nextStrike else { return }
        nextStrike += 1
        simulation.schedule(.nemesis(number: nextStrike), after: span(around: dials.faultEvery))
        guard let kind = pick(kinds), !isConvalescing(simulation) else { return }
        simulation.statistics.faults += 1
        apply(kind, simulation)
    }

    /// The leader a quarter of the time, else anyone who runs.
    private func victim(_ simulation: Simulation) -> SimulatedNode? {
        let running = simulation.nodes.filter { $0.process != nil && $0.isMember }
        if chance(25), let leader = running.first(where: { $0.process!.seen.role == .leader }) { return leader }
        return pick(running)
    }

    private func later(_ simulation: Simulation, after delay: Int64? = nil, _ undoing: @escaping () -> Void) {
        let number = nextFault
        nextFault += 1
        undoings[number] = undoing
        simulation.schedule(.undo(fault: number), after: delay ?? span(around: dials.faultLasts))
    }

    func undo(_ number: Int, in simulation: Simulation) {
        undoings.removeValue(forKey: number)?()
    }

    private func apply(_ kind: Dials.Fault, _ simulation: Simulation) {
        guard let node = victim(simulation) else { return }
        let members = simulation.nodes.filter(\.isMember)
        simulation.trace?.add(simulation, "fault: \(kind.rawValue) n\(node.number)")
        switch kind {
        case .loss, .duplicates, .reordering, .drift: break
        case .delay:
            let extra = [20_000_000, 200_000_000, 500_000_000].randomElement(using: &generator)! as Int64
            for other in members where other !== node {
                simulation.network.delay(node.id, other.id, by: extra)
                later(simulation) { [id = node.id, peer = other.id] in simulation.network.delay(id, peer, by: -extra) }
            }
        case .cut: cut(members.filter { $0 !== node }.flatMap { [(node.id, $0.id), ($0.id, node.id)] }, simulation)
        case .oneWayCut:
            let outward = chance(50)
            cut(members.filter { $0 !== node && (outward || chance(60)) }.map { outward ? (node.id, $0.id) : ($0.id, node.id) }, simulation)
        case .partition:
            // Halves of any size, or a bridge that both halves see.
            let bridge = chance(30) ? node : nil
            let side = Dictionary(uniqueKeysWithValues: members.map { ($0.number, chance(50)) })
            var pairs: [(MemberID, MemberID)] = []
            for a in members { for b in members where a !== b && a !== bridge && b !== bridge && side[a.number] != side[b.number] { pairs.append((a.id, b.id)) } }
            cut(pairs, simulation)
        case .flap:
            guard let other = pick(members.filter { $0 !== node }) else { return }
            for turn in 0..<Int64(6) {
                let pairs = [(node.id, other.id), (other.id, node.id)]
                later(simulation, after: turn * 120_000_000 + 1) { [self] in cut(pairs, simulation, for: 60_000_000) }
            }
        case .reset:
            for other in members where other !== node {
                simulation.network.reset(node, other, simulation)
                simulation.network.reset(other, node, simulation)
            }
        case .kill: end([node], .kill, simulation)
        case .powerCut: end([node], .powerCut, simulation)
        case .killAll: end(members, .kill, simulation)
        case .powerCutAll: end(members, .powerCut, simulation)
        case .restartLoop:
            end([node], chance(50) ? .kill : .powerCut, simulation, for: 100_000_000)
            for turn in Int64(1)...4 {
                later(simulation, after: turn * 700_000_000) { [self] in end([node], chance(50) ? .kill : .powerCut, simulation, for: 100_000_000) }
            }
        case .pause: pause(node, simulation)
        case .slowDisk:
            node.slowness = [5, 50, 1000].randomElement(using: &generator)!
            later(simulation) { node.slowness = 1 }
        case .stuckDisk:
            node.stuckUntil = simulation.time + span(around: dials.faultLasts)
        case .stuckLog: stickLog(of: node, simulation)
        case .diskError, .storeError:
            let operation: MemoryDisk.Operation? = kind == .storeError ? .commit : [nil, .write, .sync, .open, .rename, .syncDirectory, .truncate].randomElement(using: &generator)!
            node.disk.faults.append(MemoryDisk.Fault(operation, after: Int(generator.next() % 20), code: MemoryDisk.ioError))
            node.hadDiskFault = true
        case .diskFull:
            if chance(50) {
                node.disk.faults.append(MemoryDisk.Fault([nil, .write, .preallocate, .commit].randomElement(using: &generator)!, after: Int(generator.next() % 20), code: MemoryDisk.noSpace))
            } else {
                node.disk.capacityBytes = node.disk.usedBytes + Int(generator.next() % 20_000)
            }
            node.hadDiskFault = true
            later(simulation) { node.disk.capacityBytes = nil }
        case .clockLeap:
            if chance(50) {
                node.clock.leap(Int64.random(in: 1_000_000...20_000_000_000, using: &generator), at: simulation.time)
                simulation.clockChanged(node)
            } else {
                node.clock.wallOffsetMilliseconds += Int64.random(in: -86_400_000...86_400_000, using: &generator)
            }
        case .transfer:
            guard let leader = leader(simulation), let heir = pick(members.filter { $0 !== leader }) else { return }
            ask(.moveLeader(to: heir.id), of: leader, simulation)
        case .compaction:
            let revision = compactionTarget(simulation.world.truth.history)
            var body = ByteWriter()
            CompactionRequest(revision: Revision(revision), physical: chance(30)).encode(into: &body)
            ask(.propose(.compaction, body: body.bytes, cost: 0), of: node, simulation)
        case .leaseStorm:
            for _ in 0..<200 { ask(.leaseGrant(lease: .none, ttlSeconds: 1), of: node, simulation) }
        case .bitRot, .wipe, .oldImage: damage(kind, node, simulation)
        case .membership: changeMembers(node, simulation)
        case .usurper: usurp(simulation)
        case .regicide: ambush.electionsUntil = simulation.time + span(around: electionTimeout * 8)
        case .splitChange:
            guard let leader = leader(simulation) else { return }
            ambush.changesUntil = simulation.time + electionTimeout.nanoseconds
            changeMembers(leader, simulation)
        case .snapshotChurn: leaveBehind(node, simulation)
        }
    }

    /// Anywhere in the recent past, or right behind the present; and often at a deletion, where the revision itself has more to keep than what
    /// a read at it sees.
    private func compactionTarget(_ history: TrueHistory) -> Int64 {
        let target = max(1, history.revision - Int64(generator.next() % 60) + 1)
        guard chance(50) else { return target }
        return (max(1, target - 30)...target).last { history[$0]?.events.contains(where: \.isDelete) == true } ?? target
    }

    private func cut(_ pairs: [(MemberID, MemberID)], _ simulation: Simulation, for span: Int64? = nil) {
        for (from, to) in pairs { simulation.network.cut(from, to, by: 1) }
        later(simulation, after: span) { for (from, to) in pairs { simulation.network.cut(from, to, by: -1) } }
    }

    private func end(_ nodes: [SimulatedNode], _ death: Simulation.Death, _ simulation: Simulation, for span: Int64? = nil) {
        for node in nodes where node.process != nil {
            simulation.stop(node, death)
            simulation.schedule(.start(node), after: span ?? self.span(around: dials.faultLasts))
        }
    }

    /// A node ended by itself, its disk having failed: whoever operates it starts it again.
    func ended(_ node: SimulatedNode, _ simulation: Simulation) {
        simulation.schedule(.start(node), after: span(around: dials.faultLasts))
    }

    func couldNotStart(_ node: SimulatedNode, _ simulation: Simulation) {
        node.disk.restorePower()
        node.disk.capacityBytes = nil
        simulation.schedule(.start(node), after: span(around: dials.faultLasts))
    }

    // MARK: Ambushes

    /// Moments that it waits for, to strike right then.
    private struct Ambush {
        /// Whoever is elected before.
        var electionsUntil: Moment = 0
        /// A leader that tells its heir to campaign.
        var abdicating: MemberID?
        /// A leader that writes down a change of members before.
        var changesUntil: Moment = 0
        /// A member that was left behind and is sent a snapshot.
        var behind: MemberID?
    }

    private var electionTimeout: TimeSpan { dials.options.raft.electionTimeout }

    private func leader(_ simulation: Simulation) -> SimulatedNode? {
        simulation.nodes.filter { $0.isMember && $0.process?.seen.role == .leader }.max { $0.process!.seen.term < $1.process!.seen.term }
    }

    /// One after the other, leaders fall soon after their election, with what they have told to some: so that logs part. (Raft figure 8)
    func elected(_ node: SimulatedNode, _ simulation: Simulation) {
        guard simulation.time < ambush.electionsUntil, chance(80) else { return }
        let reach = dials.latency.upperBound + dials.syncTime.upperBound
        later(simulation, after: 1 + span(around: TimeSpan(nanoseconds: reach * [0, 1, 1, 2, 8].randomElement(using: &generator)!))) { [self] in
            guard isTrouble, node.process?.seen.role == .leader else { return }
            let lasts = span(around: electionTimeout * 2)
            switch generator.next() % 8 {
            case 0...3: isolate(node, butFor: 30, simulation, for: lasts)
            case 4: isolate(node, butFor: 0, inward: false, simulation, for: lasts)
            case 5: end([node], .powerCut, simulation, for: lasts)
            case 6: end([node], .kill, simulation, for: lasts)
            default: pause(node, simulation, for: lasts)
            }
        }
    }

    /// Cuts the links to everybody, except for some by chance.
    private func isolate(_ node: SimulatedNode, butFor percent: UInt64, inward: Bool = true, _ simulation: Simulation, for span: Int64) {
        let others = simulation.nodes.filter { $0.isMember && $0 !== node && !chance(percent) }
        cut(others.flatMap { inward ? [(node.id, $0.id), ($0.id, node.id)] : [(node.id, $0.id)] }, simulation, for: span)
    }

    /// A leader that does not notice that another has taken over, as long as it may believe in itself: all it hears is late, or nothing at all.
    private func usurp(_ simulation: Simulation) {
        guard let leader = leader(simulation), let heir = pick(simulation.nodes.filter { $0.isMember && $0.process != nil && $0 !== leader }) else { return }
        if chance(50) {
            ambush.abdicating = leader.id
        } else {
            let late = electionTimeout.nanoseconds / 10 * Int64(1 + generator.next() % 4)
            for other in simulation.nodes where other.isMember && other !== leader {
                simulation.network.delay(other.id, leader.id, by: late)
                later(simulation, after: electionTimeout.nanoseconds * 3) { [id = leader.id, peer = other.id] in simulation.network.delay(peer, id, by: -late) }
            }
        }
        ask(.moveLeader(to: heir.id), of: leader, simulation)
    }

    /// The heir will campaign when the message arrives; from then on the old leader hears of nothing.
    func abdicates(_ node: SimulatedNode, arrival: Moment, _ simulation: Simulation) {
        guard ambush.abdicating == node.id else { return }
        ambush.abdicating = nil
        later(simulation, after: arrival - simulation.time + 1) { [self] in
            guard isTrouble else { return }
            isolate(node, butFor: 10, simulation, for: span(around: electionTimeout * 2))
        }
    }

    /// A leader has written down a change of members: nobody else, or not enough, shall hear of it.
    func changesMembers(_ node: SimulatedNode, _ simulation: Simulation) {
        guard simulation.time < ambush.changesUntil, node.process?.seen.role == .leader else { return }
        ambush.changesUntil = 0
        isolate(node, butFor: 20, simulation, for: span(around: electionTimeout * 4))
    }

    /// A member misses so much that it needs a snapshot, and while that is on its way, somebody else leads.
    private func leaveBehind(_ node: SimulatedNode, _ simulation: Simulation) {
        guard node.process?.seen.role != .leader else { return }
        ambush.behind = node.id
        isolate(node, butFor: 0, simulation, for: span(around: electionTimeout * 6))
    }

    /// - Returns: how many times slower than usual the pieces travel.
    func sendsSnapshot(from node: SimulatedNode, to peer: MemberID, _ simulation: Simulation) -> Int64 {
        guard isTrouble, dials.faults.contains(.snapshotChurn) else { return 1 }
        if ambush.behind == peer {
            ambush.behind = nil
            let others = simulation.nodes.filter { $0.isMember && $0.process != nil && $0 !== node && $0.id != peer }
            if let heir = pick(others) { ask(.moveLeader(to: heir.id), of: node, simulation) }
            return [3, 30, 300].randomElement(using: &generator)!
        }
        return chance(70) ? 1 : 20
    }

    /// The log's disk stands still, the store's does not; and often somebody pulls the plug in the end.
    private func stickLog(of node: SimulatedNode, _ simulation: Simulation) {
        let lasts = span(around: dials.faultLasts)
        node.logStuckUntil = simulation.time + lasts
        guard chance(60) else { return }
        let life = node.life
        later(simulation, after: lasts - 1) { [self] in
            if isTrouble, node.life == life { end([node], chance(50) ? .kill : .powerCut, simulation) }
        }
    }

    private func pause(_ node: SimulatedNode, _ simulation: Simulation, for span: Int64? = nil) {
        simulation.setPaused(node, true)
        let life = node.life
        later(simulation, after: span) { if node.life == life { simulation.setPaused(node, false) } }
    }

    // MARK: Damage

    /// Whether a majority of the voters keeps its data when this member loses its own. Nobody can say so while nobody leads.
    private func mayDamage(_ node: SimulatedNode, _ simulation: Simulation) -> Bool {
        // Together with a removal that is on its way it might take the quorum. (swarm 9943 of an earlier version)
        guard simulation.time > removesUntil else { return false }
        guard let leader = simulation.nodes.filter({ $0.process?.seen.role == .leader }).max(by: { $0.process!.seen.term < $1.process!.seen.term }) else { return false }
        let configuration = leader.process!.replica.status(includingPeers: false).raft.configuration
        func survives(_ voters: [MemberID]) -> Bool {
            let sound = voters.count { voter in
                guard let other = simulation.nodeOf[voter.rawValue], other.hasBooted else { return false }
                return other !== node && !other.isLost && !other.mayRefuse
            }
            return sound * 2 > voters.count
        }
        return survives(configuration.voters) && (configuration.outgoingVoters.isEmpty || survives(configuration.outgoingVoters))
    }

    private func damage(_ kind: Dials.Fault, _ node: SimulatedNode, _ simulation: Simulation) {
        switch kind {
        case .wipe:
            guard mayDamage(node, simulation) else { return }
            simulation.stop(node, .powerCut)
            node.isLost = true
        case .bitRot:
            guard mayDamage(node, simulation) else { return }
            simulation.stop(node, .kill)
            let directory = MemberFiles.logDirectory(in: node.dataDirectory)
            guard let name = pick((try? node.disk.list(directory)) ?? []), var bytes = node.disk.bytes(of: directory + "/" + name), !bytes.isEmpty else { return }
            for _ in 0...generator.next() % 3 { bytes[Int(generator.next() % UInt64(bytes.count))] ^= 1 << UInt8(generator.next() % 8) }
            node.disk.setBytes(of: directory + "/" + name, bytes)
            node.mayRefuse = true
            simulation.schedule(.start(node), after: span(around: dials.faultLasts))
        case .oldImage:
            guard let image = images.removeValue(forKey: node.number), image.id == node.id else {
                guard node.durable.last > 0 else { return }
                let disk = node.disk.copy()
                images[node.number] = Image(id: node.id, disk: disk, stores: node.stores.moved(to: disk), durable: node.durable, inFlight: node.process?.logInFlight ?? [],
                                            lowestRevision: node.lowestRevision)
                return
            }
            putBack(image, on: node, simulation)
        default: break
        }
    }

    /// A member comes back with what it had some time ago: it has forgotten what it acknowledged since. While everybody else is well, and until it
    /// has caught up, that must harm nobody.
    private func putBack(_ image: Image, on node: SimulatedNode, _ simulation: Simulation) {
        let members = simulation.nodes.filter(\.isMember)
        guard undoings.isEmpty, dials.lossPerMille == 0, dials.keepsOrder, members.count > 2, node.process?.seen.role != .leader,
              // Its word must not be needed for anything that is not committed yet.
              node.durable.last <= simulation.invariants.ledger.commit,
              members.allSatisfy({ $0.process != nil && !$0.isPaused && !$0.isLost && max($0.stuckUntil, $0.logStuckUntil) <= simulation.time && $0.slowness == 1 && $0.disk.faults.isEmpty }),
              members.contains(where: { $0.process!.seen.role == .leader && $0.process!.seen.term == node.process!.seen.term }) else { return }
        simulation.stop(node, .kill)
        node.replaceDisk(image.disk)
        node.stores = image.stores
        node.durable = image.durable
        var after = image.durable
        for case .persist(let batch) in image.inFlight { after.take(batch) }
        node.durableAfterWrite = after
        node.lowestRevision = image.lowestRevision
        convalescent = (node, simulation.invariants.ledger.commit)
        simulation.start(node)
    }

    /// Whether everything else must keep still until a member that lost its memory has caught up.
    private func isConvalescing(_ simulation: Simulation) -> Bool {
        guard let (node, commit) = convalescent else { return false }
        if let process = node.process, process.seen.applied < commit { return true }
        convalescent = nil
        return false
    }

    /// What the judges must keep for the sake of images that may come back.
    var oldestImage: Int64 { images.values.reduce(.max) { min($0, $1.lowestRevision) } }

    // MARK: Members

    private func changeMembers(_ node: SimulatedNode, _ simulation: Simulation) {
        let members = simulation.nodes.filter(\.isMember)
        let free = simulation.nodes.filter { !$0.isMember && $0.process == nil && !joining.contains($0.number) }
        let lost = members.filter(\.isLost)
        func remove(_ id: MemberID) {
            removesUntil = simulation.time + dials.options.requestTimeout.nanoseconds * 2
            ask(.changeMembership(.remove(id)), of: node, simulation)
        }
        if let orphan = pick(simulation.orphans), chance(70) { return remove(orphan) }
        if let dead = pick(lost), chance(60) { return remove(dead.id) }
        switch generator.next() % 8 {
        case 0, 1, 2:
            guard let machine = pick(free), members.count < dials.nodes + dials.spares else { return }
            nextMember += 1
            let id = MemberID(0xabc0_0000 + nextMember)
            joining.insert(machine.number)
            let asked = Member(id: id, peerURLs: ["http://n\(machine.number).\(nextMember):2380"], isLearner: chance(50))
            let number = nextFault
            ask(.changeMembership(.add(asked)), of: node, simulation) { [self] answer in
                joining.remove(machine.number)
                guard case .membershipChanged(_, let list) = answer else { return }
                join(machine, id, list, simulation)
            }
            // An answer may never come.
            later(simulation, after: 20_000_000_000) { [self] in
                _ = number
                joining.remove(machine.number)
            }
        case 3, 4:
            guard members.count > 1, !members.contains(where: { $0.isLost || $0.mayRefuse }), let gone = pick(members) else { return }
            remove(gone.id)
        case 5, 6:
            guard let learner = members.first(where: { $0.process?.replica.isLearner == true }) else { return }
            ask(.changeMembership(.promote(learner.id)), of: node, simulation)
        default:
            guard let moved = pick(members) else { return }
            ask(.changeMembership(.update(moved.id, peerURLs: ["http://moved.\(nextFault)"])), of: node, simulation)
        }
    }

    private func join(_ machine: SimulatedNode, _ id: MemberID, _ members: [Member], _ simulation: Simulation) {
        guard machine.process == nil, !machine.isMember else { return }
        simulation.nodeOf[machine.id.rawValue] = nil
        machine.becomeNew(id, contacts: members)
        simulation.nodeOf[id.rawValue] = machine
        simulation.statistics.membershipChanges += 1
        simulation.schedule(.start(machine), after: Int64(generator.next() % 3_000_000_000))
    }

    // MARK: Requests of its own

    func ask(_ request: Request, of node: SimulatedNode, _ simulation: Simulation, then reply: ((Answer) -> Void)? = nil) {
        let token = RequestToken(rawValue: nextToken)
        nextToken += 1
        if let reply { replies[token.rawValue] = reply }
        simulation.schedule(.post(node, life: node.life, .request(token, request, requiresLeader: false, from: .commonName(.root))), after: 100_000)
    }

    /// Whether the answer was for the nemesis.
    func answered(_ token: RequestToken, _ answer: Answer, _ simulation: Simulation) -> Bool {
        guard token.rawValue >= 1 << 62 else { return false }
        replies.removeValue(forKey: token.rawValue)?(answer)
        return true
    }
}
