/// What the active faults make of the cluster: computed from the list, so that it is seen before the nodes feel it.

/// The state of a link in the one direction.
enum LinkState: Hashable {
    /// A node to itself.
    case none
    case down
    case cut
    case worse(WireFault, roundTripMicroseconds: Int?)
    /// `roundTripMicroseconds` is known where one end leads.
    case open(roundTripMicroseconds: Int?)
}

/// How many voters can work together.
struct QuorumFacts: Hashable {
    var voters: Int
    /// The most that one of them can reach both ways, itself included.
    var working: Int
    var needed: Int { voters / 2 + 1 }
    var holds: Bool { working >= needed }

    var sentence: String {
        if voters == 0 { return "no voter is known yet" }
        if !holds { return "no quorum: \(working) of \(voters) voters work together, \(needed) are needed; writes and linearizable reads wait" }
        let spare = working - needed
        return "\(working) of \(voters) voters work together, \(needed) needed: " + (spare == 0 ? "no further failure is safe" : "\(spare) more failure\(spare == 1 ? " is" : "s are") safe")
    }

    /// The same where there is less room.
    var brief: String {
        if !holds { return "no quorum: \(working) of \(voters) work, \(needed) needed" }
        return "\(working) of \(voters) work, \(needed) needed: " + (working == needed ? "none may fail now" : "\(working - needed) more may fail")
    }

    var slot: Slot { !holds ? .bad : working < voters ? .warn : .ok }
}

extension Model {
    func name(of member: UInt64) -> String { cluster.members.first { $0.id == member }?.name ?? Format.hex(member) }

    func faultLine(_ fault: Fault) -> String { FaultText.line(fault, name(of:)) }

    /// Faults that act on a node, for marking it.
    func faults(on member: UInt64) -> [ActiveFault] { faults.filter { $0.fault.nodes.contains(member) } }

    // MARK: Links

    private func isCut(_ from: UInt64, _ to: UInt64, _ list: [Fault]) -> Bool {
        list.contains { fault in
            switch fault {
            case .cut(from, to): return true
            case .isolate(let node): return node == from || node == to
            case .partition(let groups):
                guard let a = groups.firstIndex(where: { $0.contains(from) }), let b = groups.firstIndex(where: { $0.contains(to) }) else { return false }
                return a != b
            default: return false
            }
        }
    }

    private func isCutOff(_ member: MemberState) -> Bool { if case .isolated = member.health { true } else { false } }

    /// Faults of one link, added up.
    private func wire(_ from: UInt64, _ to: UInt64) -> WireFault? {
        var sum: WireFault?
        for case .wire(let a, let b, let wire) in faults.map(\.fault) where (a ?? from) == from && (b ?? to) == to {
            var total = sum ?? WireFault()
            total.delayMilliseconds += wire.delayMilliseconds
            total.jitterMilliseconds += wire.jitterMilliseconds
            total.lossPercent = max(total.lossPercent, wire.lossPercent)
            total.duplicatePercent = max(total.duplicatePercent, wire.duplicatePercent)
            if let rate = wire.bytesPerSecond { total.bytesPerSecond = min(rate, total.bytesPerSecond ?? rate) }
            sum = total
        }
        return sum
    }

    /// The round trip that the leader measures, between it and a peer; nil where none of the two leads or it is old.
    func roundTrip(_ a: UInt64, _ b: UInt64) -> Int? {
        for (leader, peer) in [(a, b), (b, a)] {
            guard let sample = leaderSample, sample.node == leader else { continue }
            return sample.peers.first { $0.id == peer && $0.isActive }?.roundTripMicroseconds
        }
        return nil
    }

    /// What the leader told last, while it is fresh.
    var leaderSample: NodeSample? {
        guard let leader = cluster.leader, let sample = samples[leader.id], sample.role == .leader, isFresh(sample) else { return nil }
        return sample
    }

    func isFresh(_ sample: NodeSample) -> Bool { now.milliseconds - sample.atMicroseconds / 1_000 < 3_500 }

    func link(_ from: MemberState, _ to: MemberState) -> LinkState {
        if from.id == to.id { return .none }
        if !from.isUp || !to.isUp { return .down }
        if isCutOff(from) || isCutOff(to) || isCut(from.id, to.id, faults.map(\.fault)) { return .cut }
        let trip = roundTrip(from.id, to.id)
        return wire(from.id, to.id).map { .worse($0, roundTripMicroseconds: trip) } ?? .open(roundTripMicroseconds: trip)
    }

    // MARK: Quorum

    /// - Parameter extra: faults that are not on yet: what would become of the quorum with them.
    func quorumFacts(with extra: [Fault] = []) -> QuorumFacts {
        let voters = cluster.members.filter { $0.role != .learner }
        let list = faults.map(\.fault) + extra
        func works(_ member: MemberState) -> Bool {
            switch member.health {
            case .up, .isolated: break
            case .starting, .paused, .down: return false
            }
            return !list.contains { fault in
                switch fault {
                case .kill(member.id), .stop(member.id), .tornTail(member.id), .pause(member.id), .disk(member.id, .stuck), .disk(member.id, .full), .disk(member.id, .broken): true
                default: false
                }
            }
        }
        let working = voters.filter(works)
        let most = working.map { leader in
            1 + working.count { peer in
                peer.id != leader.id && !isCutOff(peer) && !isCutOff(leader) && !isCut(leader.id, peer.id, list) && !isCut(peer.id, leader.id, list)
            }
        }.max() ?? 0
        return QuorumFacts(voters: voters.count, working: most)
    }

    /// What to add to the receipt of faults that cost the quorum; nil while it holds, or was lost before.
    func quorumRemark(_ extra: [Fault]) -> String? {
        let after = quorumFacts(with: extra)
        guard after.voters > 0, !after.holds, quorumFacts().holds else { return nil }
        return "the quorum is lost: \(after.working) of \(after.voters) voters work together"
    }

    // MARK: Effects

    /// What an active fault does to its node right now, from what the nodes tell; nil: nothing is known.
    func effect(of fault: Fault) -> String? {
        func lag(_ node: UInt64) -> String? {
            guard let member = cluster.members.first(where: { $0.id == node }), let applied = member.applied, let commit = cluster.members.compactMap(\.commit).max() else { return nil }
            return "lag \(Format.count(commit > applied ? commit - applied : 0))"
        }
        func trip(_ a: UInt64, _ b: UInt64) -> String? { roundTrip(a, b).map { "rtt \(Format.milliseconds($0)) ms" } }
        switch fault {
        case .kill(let node), .stop(let node), .tornTail(let node):
            guard let member = cluster.members.first(where: { $0.id == node }), case .down(let since, _) = member.health else { return nil }
            return "down \(Format.age(milliseconds: now - since))"
        case .pause(let node), .isolate(let node): return lag(node)
        case .cut(let from, let to): return trip(from, to)
        case .partition: return quorumFacts().holds ? "quorum holds" : "no quorum"
        case .wire(let from, let to, _):
            if let from, let to { return trip(from, to) }
            guard let node = from ?? to, let leader = leaderSample?.node else { return nil }
            return leader == node ? nil : trip(leader, node)
        case .disk(let node, _):
            let fsync = cluster.members.first { $0.id == node }?.fsyncMicroseconds.map { "fsync \(Format.milliseconds($0)) ms" }
            return fsync ?? lag(node)
        case .clock(let node, _):
            return cluster.members.first { $0.id == node }.map { Model.roleText(RoleLanes.state(of: $0)).label }
        }
    }

    // MARK: What stands in the way

    static let playgroundOnly = "faults act only on nodes that this console started"

    /// Why a fault cannot be switched on now; nil: it can.
    func obstacle(to fault: Fault) -> String? {
        if mode == .readOnly { return isReadOnly ? "read-only: capitals are off (started with --read-only)" : "this cluster is read-only" }
        if cluster.kind == .attached { return Model.playgroundOnly }
        if let reason = faultSupport.reason(fault.kind) { return reason }
        switch fault {
        case .kill(let node), .stop(let node), .tornTail(let node), .pause(let node):
            guard let member = cluster.members.first(where: { $0.id == node }) else { return "no such node" }
            if case .down = member.health { return "\(member.name) is down: R restarts it" }
        default: break
        }
        return nil
    }

    func obstacle(to list: [Fault]) -> String? {
        for fault in list { if let reason = obstacle(to: fault) { return reason } }
        return nil
    }

    /// Why no kind of an act is to be had here.
    func reason(against act: FaultAct) -> String? {
        let reasons = act.kinds.map { faultSupport.reason($0) }
        return reasons.contains(nil) ? nil : reasons.first ?? nil
    }
}
