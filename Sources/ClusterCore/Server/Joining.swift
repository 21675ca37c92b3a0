import Base
import Log
import NIOCore
import Replica

// Which member of which cluster a node is: from its data directory, or from its flags, or from the cluster that it joins.

/// Who a node is to be, and what it starts from when its data directory is empty.
struct NodeRole: Sendable {
    var identity: LogIdentity
    /// Whom a new member takes for the founders.
    var founders: [Member] = []
    /// The members of a cluster that exists, this one included: it joins them.
    var contacts: [Member]?
    /// As the flags have it, when they disagree with the data directory.
    var claimed: LogIdentity?
}

extension NodeConfiguration {
    /// - Parameter known: whose log the data directory holds, if it holds one: the flags of the first start do not matter any more then.
    func role(known: LogIdentity?, dialer: PeerDialer, on group: any EventLoopGroup) async throws -> NodeRole {
        if let known {
            guard let (members, own) = try? initialMembers() else { return NodeRole(identity: known) }
            let claimed = LogIdentity(cluster: Identifiers.cluster(members: members.map(\.id)), member: own)
            return NodeRole(identity: known, founders: members, claimed: claimed == known ? nil : claimed)
        }
        let (members, own) = try initialMembers()
        let others = initialCluster.filter { $0.name != name }.map(\.url)
        if isExistingCluster { return try await join(members, others, dialer, on: group) }
        let cluster = Identifiers.cluster(members: members.map(\.id))
        // A founder that lost its data must not found again: the others count on what it has promised. (reliability.md, incident 41)
        if !others.isEmpty, let remote = try? await RemoteCluster.fetch(from: others, by: dialer, on: group), remote.id == cluster,
           let known = remote.members.first(where: { $0.id == own }), !known.clientURLs.isEmpty {
            throw NodeError.configuration("member \(own) has already been bootstrapped: restore its data directory, or remove it from the cluster and add it anew")
        }
        return NodeRole(identity: LogIdentity(cluster: cluster, member: own), founders: members)
    }

    /// etcd's checks and words: as many members as `--initial-cluster` names, with the same peer URLs.
    private func join(_ local: [Member], _ others: [NodeURL], _ dialer: PeerDialer, on group: any EventLoopGroup) async throws -> NodeRole {
        let remote: RemoteCluster
        do {
            remote = try await RemoteCluster.fetch(from: others, by: dialer, on: group)
        } catch {
            throw NodeError.configuration("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs (\(error))")
        }
        func mismatch(_ reason: String) -> NodeError {
            let members = remote.members.map { "{ID:\($0.id) Name:\($0.name) PeerURLs:[\($0.peerURLs.joined(separator: " "))]}" }.joined(separator: " ")
            return .configuration("error validating peerURLs {ClusterID:\(remote.id) Members:[\(members)]}: \(reason)")
        }
        guard local.count == remote.members.count else { throw mismatch("member count is unequal") }
        for member in remote.members where !local.contains(where: { $0.peerURLs.sorted() == member.peerURLs.sorted() }) {
            throw mismatch("PeerURLs: no match found for existing member (\(member.id), [\(member.peerURLs.joined(separator: " "))])")
        }
        let own = initialAdvertisePeerURLs.map(\.description).sorted()
        guard let me = remote.members.first(where: { $0.peerURLs.sorted() == own }) else { throw mismatch("no member has \(own.joined(separator: ","))") }
        guard me.clientURLs.isEmpty else {
            throw NodeError.configuration("member \(me.id) has already been bootstrapped: restore its data directory, or remove it from the cluster and add it anew")
        }
        return NodeRole(identity: LogIdentity(cluster: remote.id, member: me.id), contacts: remote.members)
    }

    /// Whether data that the flags do not lead to is this member's all the same: it has its address, as one that joined later has.
    func isMember(_ role: NodeRole, _ state: ReplicaState) -> Bool {
        guard role.claimed != nil else { return true }
        guard let me = state.membership.member(role.identity.member) ?? state.contacts.first(where: { $0.id == role.identity.member }) else {
            // Not even its own table knows it yet: its log does.
            return true
        }
        return me.peerURLs.sorted() == initialAdvertisePeerURLs.map(\.description).sorted()
    }
}
