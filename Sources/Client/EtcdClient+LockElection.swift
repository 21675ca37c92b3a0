import Base
import Wire

/// Proof of leadership in an election: good as long as the key of that revision is there.
public struct LeaderKey: Hashable, Sendable {
    /// The election's.
    public var name: [UInt8]
    public var key: [UInt8]
    /// At which the key was created. Fences: later leaders have later ones.
    public var revision: Revision
    public var lease: LeaseID
    public init(name: [UInt8], key: [UInt8], revision: Revision, lease: LeaseID) {
        self.name = name
        self.key = key
        self.revision = revision
        self.lease = lease
    }
}

// The Lock and Election services: the server waits, the lease is the caller's to keep alive (`keepAlive`). A call that is cancelled gives its turn up.
extension EtcdClient {
    /// Waits until the lock is the lease's. Without a lease the server grants one of a minute, which nobody keeps alive.
    /// - Returns: the key that holds the lock; `unlock` takes it.
    public func lock(_ name: [UInt8], lease: LeaseID = .none, options: CallOptions = CallOptions()) async throws -> [UInt8] {
        var request = PBLockRequest()
        request.name = .init(name)
        request.lease = lease.rawValue
        return [UInt8](try await call(.lock, request, PBLockResponse.self, options).key)
    }

    public func unlock(_ key: [UInt8], options: CallOptions = CallOptions()) async throws {
        var request = PBUnlockRequest()
        request.key = .init(key)
        _ = try await call(.unlock, request, PBUnlockResponse.self, options)
    }

    /// Waits until the lease's owner leads.
    public func campaign(_ name: [UInt8], value: [UInt8], lease: LeaseID = .none, options: CallOptions = CallOptions()) async throws -> LeaderKey {
        var request = PBCampaignRequest()
        request.name = .init(name)
        request.lease = lease.rawValue
        request.value = .init(value)
        let leader = try await call(.campaign, request, PBCampaignResponse.self, options).leader
        return LeaderKey(name: [UInt8](leader.name), key: [UInt8](leader.key), revision: Revision(leader.rev), lease: LeaseID(leader.lease))
    }

    /// Says something else as the leader. Fails with `ServiceError.electionNotLeader` once another one leads.
    public func proclaim(_ value: [UInt8], as leader: LeaderKey, options: CallOptions = CallOptions()) async throws {
        var request = PBProclaimRequest()
        request.leader = PBLeaderKey(leader)
        request.value = .init(value)
        _ = try await call(.proclaim, request, PBProclaimResponse.self, options)
    }

    /// Lets the next candidate lead. Without effect when this leadership is over.
    public func resign(_ leader: LeaderKey, options: CallOptions = CallOptions()) async throws {
        var request = PBResignRequest()
        request.leader = PBLeaderKey(leader)
        _ = try await call(.resign, request, PBResignResponse.self, options)
    }

    /// The leader's key and what it said; nil when nobody leads.
    public func leader(of name: [UInt8], options: CallOptions = CallOptions()) async throws -> KeyValue? {
        var request = PBLeaderRequest()
        request.name = .init(name)
        do {
            return KeyValue(try await call(.leader, request, PBLeaderResponse.self, options).kv)
        } catch let error as EtcdError where error.isService(.electionNoLeader) {
            return nil
        }
    }
}

extension PBLeaderKey {
    init(_ leader: LeaderKey) {
        self.init()
        name = .init(leader.name)
        key = .init(leader.key)
        rev = leader.revision.rawValue
        lease = leader.lease.rawValue
    }
}
