import Base
import Foundation
import GRPC
import NIOPosix
import RawClient
import Wire

/// Raw gRPC calls to one server, and what it answers as text: a line for each message and one for the status. Ids of members and clusters, terms
/// and sizes of files are blanked, since each server has its own.
final class Conversation: Sendable {
    /// As `host:port`.
    let endpoint: String
    private let port: Int
    private let client: TestClient

    init(_ endpoint: String) async throws {
        self.endpoint = endpoint
        port = Int(endpoint.split(separator: ":").last!)!
        client = try await TestClient.connect(port, group: MultiThreadedEventLoopGroup.singleton)
    }

    func close() async { await client.close() }

    // MARK: Calls

    /// A call with one request.
    func answer(_ method: MethodID, _ request: [UInt8], metadata: [MetadataField] = [], timeout: TimeSpan? = nil) async -> String {
        await answer(path: method.path, [request], as: method, metadata: metadata, timeout: timeout)
    }

    func answer<Request: ProtobufMessage>(_ method: MethodID, _ request: Request, metadata: [MetadataField] = []) async -> String {
        await answer(method, request.encoded(), metadata: metadata)
    }

    /// A call with any path and number of requests.
    func answer(path: String, _ requests: [[UInt8]], as method: MethodID, metadata: [MetadataField] = [], timeout: TimeSpan? = nil) async -> String {
        let call = client.start(path: path, metadata: metadata, timeout: timeout, limit: .seconds(20))
        for request in requests { call.send(request) }
        call.halfClose()
        let (messages, status) = await call.end()
        return (messages.map { Conversation.text(of: $0, as: method) } + [Conversation.text(of: status)]).joined(separator: "\n")
    }

    /// A call on a connection of its own, with these header fields added, changed or (nil) left out.
    func raw(path: String, _ changes: [String: String?], more: [(String, String)] = [], body: [UInt8]) async -> String {
        var fields = RawExchange.fields(path: path)
        for (name, value) in changes.sorted(by: { $0.key < $1.key }) {
            let place = fields.firstIndex { $0.0 == name }
            switch (place, value) {
            case (let place?, let value?): fields[place].1 = value
            case (let place?, nil): fields.remove(at: place)
            case (nil, let value): fields.append((name, value ?? ""))
            }
        }
        do {
            let (messages, status) = try await RawExchange.run(port, fields + more, body, group: MultiThreadedEventLoopGroup.singleton)
            let method = MethodID.allCases.first { $0.path == path } ?? .range
            return (messages.map { Conversation.text(of: $0, as: method) } + [Conversation.text(of: status)]).joined(separator: "\n")
        } catch { return "no connection: \(error)" }
    }

    /// What a call answered, decoded: for what a later call needs of it.
    func value<Request: ProtobufMessage, Response: ProtobufMessage>(_ method: MethodID, _ request: Request, _: Response.Type, metadata: [MetadataField] = []) async throws -> Response {
        let (messages, status) = await client.call(method, request.encoded(), metadata: metadata)
        guard status.code == .ok, let message = messages.first else { throw Late(description: "\(method): \(status.code) \(status.message)") }
        return try Response(decoding: message)
    }

    /// A call that stays open.
    func open(_ method: MethodID, metadata: [MetadataField] = []) -> Stream {
        Stream(call: client.start(path: method.path, metadata: metadata, limit: .seconds(20)), method: method)
    }

    struct Stream: Sendable {
        fileprivate let call: TestClient.Call
        let method: MethodID

        func send<Request: ProtobufMessage>(_ request: Request) { call.send(request.encoded()) }
        func send(_ bytes: [UInt8]) { call.send(bytes) }
        func halfClose() { call.halfClose() }
        func cancel() { call.cancel() }

        /// The next message, or how the call ended.
        func next() async -> String {
            if let message = await call.next() { return Conversation.text(of: message, as: method) }
            return Conversation.text(of: await call.end().status)
        }

        func next(_ count: Int) async -> String {
            var lines: [String] = []
            for _ in 0..<count { lines.append(await next()) }
            return lines.joined(separator: "\n")
        }
    }

    // MARK: Text

    /// What a library says of bytes that it cannot read is its own.
    private static func text(of status: CallStatus) -> String {
        let message = status.message.replacingOccurrences(of: "(grpc: error unmarshalling request|grpc: failed to (unmarshal|decompress) the received message):? .*", with: "$1", options: .regularExpression)
        return "\(status.code.metricName) \(message)"
    }

    private static func text(of message: [UInt8], as method: MethodID) -> String {
        guard let decode = decoders[method] else { return "\(message.count) bytes" }
        do {
            var text = try decode(message)
            for (pattern, replacement) in [
                // Told by 3.6 and later, and by ours.
                (#"(?m)^hash_revision: -?\d+$"#, ""),
                (#"\b(cluster_id|member_id|memberID|raft_term|leader|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse): \d+"#, "$1: N"), (#"\bID: \d{15,}"#, "ID: N"),
                (#"127\.0\.0\.1:\d+"#, "ADDRESS"), (#"version: "3\.5\.\d+""#, "version: V"), (#"token: "[^"]+""#, "token: T"), (#"\s+"#, " "),
            ] { text = text.replacingOccurrences(of: pattern, with: replacement, options: .regularExpression) }
            return "{ \(inOrder(text))}"
        } catch { return "not decodable: \(error)" }
    }

    /// etcd lists keys of leases and alarms in no order, members by ids, which are chance.
    private static func inOrder(_ text: String) -> String {
        for (place, element) in [("keys", #"keys: "[^"]*" "#), ("alarms", #"alarms \{[^}]*\} "#), ("members", #"members \{[^}]*\} "#)] where text.contains(place) {
            guard let expression = try? NSRegularExpression(pattern: "(\(element))+") else { continue }
            var sorted = text
            for match in expression.matches(in: text, range: NSRange(text.startIndex..., in: text)).reversed() {
                let list = Range(match.range, in: text)!
                let elements = text[list].matches(of: try! Regex(element)).map { String($0.output[0].substring!) }
                sorted.replaceSubrange(Range(match.range, in: sorted)!, with: elements.sorted().joined())
            }
            return sorted
        }
        return text
    }

    private static let decoders: [MethodID: @Sendable ([UInt8]) throws -> String] = {
        func decoder<Message: ProtobufMessage>(_: Message.Type) -> @Sendable ([UInt8]) throws -> String {
            { bytes in
                let message = try Message(decoding: bytes)
                return message.text
            }
        }
        return [
            .range: decoder(PBRangeResponse.self), .put: decoder(PBPutResponse.self), .deleteRange: decoder(PBDeleteRangeResponse.self), .txn: decoder(PBTxnResponse.self), .compact: decoder(PBCompactionResponse.self),
            .watch: decoder(PBWatchResponse.self), .leaseGrant: decoder(PBLeaseGrantResponse.self), .leaseRevoke: decoder(PBLeaseRevokeResponse.self), .leaseKeepAlive: decoder(PBLeaseKeepAliveResponse.self),
            .leaseTimeToLive: decoder(PBLeaseTimeToLiveResponse.self), .leaseLeases: decoder(PBLeaseLeasesResponse.self),
            .memberAdd: decoder(PBMemberAddResponse.self), .memberRemove: decoder(PBMemberRemoveResponse.self), .memberUpdate: decoder(PBMemberUpdateResponse.self), .memberList: decoder(PBMemberListResponse.self),
            .memberPromote: decoder(PBMemberPromoteResponse.self),
            .alarm: decoder(PBAlarmResponse.self), .status: decoder(PBStatusResponse.self), .defragment: decoder(PBDefragmentResponse.self), .hashKV: decoder(PBHashKVResponse.self),
            .moveLeader: decoder(PBMoveLeaderResponse.self), .downgrade: decoder(PBDowngradeResponse.self),
            .authEnable: decoder(PBAuthEnableResponse.self), .authDisable: decoder(PBAuthDisableResponse.self), .authStatus: decoder(PBAuthStatusResponse.self), .authenticate: decoder(PBAuthenticateResponse.self),
            .userAdd: decoder(PBAuthUserAddResponse.self), .userGet: decoder(PBAuthUserGetResponse.self), .userList: decoder(PBAuthUserListResponse.self), .userDelete: decoder(PBAuthUserDeleteResponse.self),
            .userChangePassword: decoder(PBAuthUserChangePasswordResponse.self), .userGrantRole: decoder(PBAuthUserGrantRoleResponse.self), .userRevokeRole: decoder(PBAuthUserRevokeRoleResponse.self),
            .roleAdd: decoder(PBAuthRoleAddResponse.self), .roleGet: decoder(PBAuthRoleGetResponse.self), .roleList: decoder(PBAuthRoleListResponse.self), .roleDelete: decoder(PBAuthRoleDeleteResponse.self),
            .roleGrantPermission: decoder(PBAuthRoleGrantPermissionResponse.self), .roleRevokePermission: decoder(PBAuthRoleRevokePermissionResponse.self),
            .lock: decoder(PBLockResponse.self), .unlock: decoder(PBUnlockResponse.self), .campaign: decoder(PBCampaignResponse.self), .proclaim: decoder(PBProclaimResponse.self),
            .leader: decoder(PBLeaderResponse.self), .observe: decoder(PBLeaderResponse.self), .resign: decoder(PBResignResponse.self),
            .healthCheck: decoder(PBHealthCheckResponse.self), .healthWatch: decoder(PBHealthCheckResponse.self), .healthList: decoder(PBHealthListResponse.self),
        ]
    }()
}
