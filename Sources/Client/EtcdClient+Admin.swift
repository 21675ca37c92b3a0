import Base
import Wire

extension ResponseHeader {
    init(_ header: PBResponseHeader) {
        self.init(clusterID: ClusterID(header.clusterID), memberID: MemberID(header.memberID), revision: Revision(header.revision),
                  raftTerm: Term(header.raftTerm))
    }
}

/// A member of the cluster as the cluster knows it.
public struct Member: Hashable, Sendable {
    public var id: MemberID
    /// Empty until the member has started.
    public var name: String
    public var peerURLs: [String]
    public var clientURLs: [String]
    public var isLearner: Bool

    init(_ member: PBMember) {
        id = MemberID(member.id)
        name = member.name
        peerURLs = member.peerUrls
        clientURLs = member.clientUrls
        isLearner = member.isLearner
    }
}

public struct MemberList: Hashable, Sendable {
    public var header: ResponseHeader
    public var members: [Member]
}

/// What one member says about itself.
public struct MemberStatus: Hashable, Sendable {
    public var header: ResponseHeader
    public var version: String
    public var dbSizeBytes: Int64
    public var dbSizeInUseBytes: Int64
    /// 0 when the server is older than 3.6.
    public var dbQuotaBytes: Int64
    /// `.none`: it knows none.
    public var leader: MemberID
    public var raftTerm: Term
    public var raftIndex: LogIndex
    public var raftAppliedIndex: LogIndex
    public var errors: [String]
    public var isLearner: Bool
    /// Empty when the server is older than 3.6.
    public var storageVersion: String
    /// Time from sending the call to its answer.
    public var latency: TimeSpan
}

public struct Alarm: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        case noSpace, corrupt
        case other(Int)

        init(_ type: PBAlarmType) {
            self = switch type {
            case .nospace: .noSpace
            case .corrupt: .corrupt
            default: .other(type.rawValue)
            }
        }

        var wire: PBAlarmType {
            switch self {
            case .noSpace: .nospace
            case .corrupt: .corrupt
            case .other(let number): PBAlarmType(rawValue: number) ?? .none
            }
        }
    }
    public var member: MemberID
    public var kind: Kind
    public init(member: MemberID, kind: Kind) {
        self.member = member
        self.kind = kind
    }
}

public struct KeyValueHash: Hashable, Sendable {
    public var header: ResponseHeader
    public var hash: UInt32
    /// The compaction that the hash assumes; -1 for none. 0 from `hash`, which is over the whole file.
    public var compactRevision: Revision
    /// 0 when the server is older than 3.6.
    public var hashRevision: Revision
}

// MARK: Calls with generated messages

extension EtcdClient {
    /// Any unary call with the messages of the Wire module.
    public func call<Response: ProtobufMessage>(_ method: MethodID, _ request: some ProtobufMessage, _: Response.Type,
                                                      _ options: CallOptions = CallOptions()) async throws -> Response {
        let answer = try await unary(method, request.encoded(), options: options)
        do {
            return try Response(decoding: answer)
        } catch {
            throw EtcdError.malformedResponse("\(error)")
        }
    }
}

// MARK: Cluster

extension EtcdClient {
    /// - Parameter isLinearizable: false: as the asked member sees it, without a quorum.
    public func members(isLinearizable: Bool = true, options: CallOptions = CallOptions()) async throws -> MemberList {
        var request = PBMemberListRequest()
        request.linearizable = isLinearizable
        let answer = try await call(.memberList, request, PBMemberListResponse.self, options)
        return MemberList(header: ResponseHeader(answer.header), members: answer.members.map(Member.init))
    }

    /// Returns the new member first, then all members.
    public func addMember(peerURLs: [String], isLearner: Bool = false, options: CallOptions = CallOptions()) async throws -> (Member, MemberList) {
        var request = PBMemberAddRequest()
        request.peerUrls = peerURLs
        request.isLearner = isLearner
        let answer = try await call(.memberAdd, request, PBMemberAddResponse.self, options)
        return (Member(answer.member), MemberList(header: ResponseHeader(answer.header), members: answer.members.map(Member.init)))
    }

    @discardableResult
    public func removeMember(_ id: MemberID, options: CallOptions = CallOptions()) async throws -> MemberList {
        var request = PBMemberRemoveRequest()
        request.id = id.rawValue
        let answer = try await call(.memberRemove, request, PBMemberRemoveResponse.self, options)
        return MemberList(header: ResponseHeader(answer.header), members: answer.members.map(Member.init))
    }

    @discardableResult
    public func updateMember(_ id: MemberID, peerURLs: [String], options: CallOptions = CallOptions()) async throws -> MemberList {
        var request = PBMemberUpdateRequest()
        request.id = id.rawValue
        request.peerUrls = peerURLs
        let answer = try await call(.memberUpdate, request, PBMemberUpdateResponse.self, options)
        return MemberList(header: ResponseHeader(answer.header), members: answer.members.map(Member.init))
    }

    /// Makes a learner a voter.
    @discardableResult
    public func promoteMember(_ id: MemberID, options: CallOptions = CallOptions()) async throws -> MemberList {
        var request = PBMemberPromoteRequest()
        request.id = id.rawValue
        let answer = try await call(.memberPromote, request, PBMemberPromoteResponse.self, options)
        return MemberList(header: ResponseHeader(answer.header), members: answer.members.map(Member.init))
    }
}

// MARK: Maintenance

extension EtcdClient {
    private func pinned(_ endpoint: Endpoint?, _ options: CallOptions) -> CallOptions {
        var options = options
        if let endpoint { options.endpoint = endpoint }
        return options
    }

    /// Asks one member about itself. Cheap: answered locally, also without a quorum.
    public func status(of endpoint: Endpoint? = nil, options: CallOptions = CallOptions()) async throws -> MemberStatus {
        let clock = ContinuousClock()
        let start = clock.now
        let answer = try await call(.status, PBStatusRequest(), PBStatusResponse.self, pinned(endpoint, options))
        let taken = clock.now - start
        return MemberStatus(
            header: ResponseHeader(answer.header), version: answer.version, dbSizeBytes: answer.dbSize,
            dbSizeInUseBytes: answer.dbSizeInUse, dbQuotaBytes: answer.dbSizeQuota, leader: MemberID(answer.leader),
            raftTerm: Term(answer.raftTerm), raftIndex: LogIndex(answer.raftIndex), raftAppliedIndex: LogIndex(answer.raftAppliedIndex),
            errors: answer.errors, isLearner: answer.isLearner, storageVersion: answer.storageVersion,
            latency: TimeSpan(nanoseconds: Int64(taken / .nanoseconds(1))))
    }

    public func alarms(options: CallOptions = CallOptions()) async throws -> [Alarm] {
        try await alarm(.get, nil, options)
    }

    /// Clears one alarm; returns it, or nothing when it was not set.
    @discardableResult
    public func disarm(_ alarm: Alarm, options: CallOptions = CallOptions()) async throws -> [Alarm] {
        try await self.alarm(.deactivate, alarm, options)
    }

    @discardableResult
    public func raise(_ alarm: Alarm, options: CallOptions = CallOptions()) async throws -> [Alarm] {
        try await self.alarm(.activate, alarm, options)
    }

    private func alarm(_ action: PBAlarmRequest.AlarmAction, _ alarm: Alarm?, _ options: CallOptions) async throws -> [Alarm] {
        var request = PBAlarmRequest()
        request.action = action
        if let alarm {
            request.memberID = alarm.member.rawValue
            request.alarm = alarm.kind.wire
        }
        let answer = try await call(.alarm, request, PBAlarmResponse.self, options)
        return answer.alarms.map { Alarm(member: MemberID($0.memberID), kind: Alarm.Kind($0.alarm)) }
    }

    /// Rewrites the member's database file; the member serves nothing meanwhile, so give it time.
    public func defragment(_ endpoint: Endpoint, options: CallOptions = CallOptions(timeout: .seconds(60))) async throws {
        _ = try await call(.defragment, PBDefragmentRequest(), PBDefragmentResponse.self, pinned(endpoint, options))
    }

    /// Checksum over the member's whole database.
    public func hash(of endpoint: Endpoint? = nil, options: CallOptions = CallOptions()) async throws -> KeyValueHash {
        let answer = try await call(.hash, PBHashRequest(), PBHashResponse.self, pinned(endpoint, options))
        return KeyValueHash(header: ResponseHeader(answer.header), hash: answer.hash, compactRevision: .zero, hashRevision: .zero)
    }

    /// Checksum over the key history up to `revision` (0: now): equal on members that hold the same data.
    public func hashKV(of endpoint: Endpoint? = nil, revision: Revision = .zero, options: CallOptions = CallOptions()) async throws -> KeyValueHash {
        var request = PBHashKVRequest()
        request.revision = revision.rawValue
        let answer = try await call(.hashKV, request, PBHashKVResponse.self, pinned(endpoint, options))
        return KeyValueHash(header: ResponseHeader(answer.header), hash: answer.hash, compactRevision: Revision(answer.compactRevision),
                            hashRevision: Revision(answer.hashRevision))
    }

    /// Hands leadership to another voter. Has to be asked of the leader: pin its endpoint.
    public func moveLeader(to target: MemberID, options: CallOptions = CallOptions()) async throws {
        var request = PBMoveLeaderRequest()
        request.targetID = target.rawValue
        _ = try await call(.moveLeader, request, PBMoveLeaderResponse.self, options)
    }

    /// True when the member says that it serves (gRPC health service).
    public func isServing(_ endpoint: Endpoint? = nil, options: CallOptions = CallOptions()) async throws -> Bool {
        try await call(.healthCheck, PBHealthCheckRequest(), PBHealthCheckResponse.self, pinned(endpoint, options)).status == .serving
    }
}
