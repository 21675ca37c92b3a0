import Base
import Foundation
import GRPC
import NIOCore
import NIOPosix
import Replica
@testable import Store
import Testing
import Wire
@testable import Server

/// The Lock and Election services of real nodes.
@Suite(.serialized) struct LockElectionTests {
    /// A client of one node, with the calls that these tests make.
    private struct Caller {
        let client: TestClient

        func grant(_ lease: Int64, seconds: Int64 = 600) async { _ = await client.call(.leaseGrant, numberRequest(seconds, lease)) }
        func revoke(_ lease: Int64) async { _ = await client.call(.leaseRevoke, numberRequest(lease)) }

        func start(_ method: MethodID, _ request: some ProtobufMessage, timeout: TimeSpan? = nil, token: String = "") -> TestClient.Call {
            let call = client.start(method, metadata: token.isEmpty ? [] : [MetadataField("token", token)], timeout: timeout)
            call.send(request.encoded())
            call.halfClose()
            return call
        }

        func lock(_ name: String, _ lease: Int64, timeout: TimeSpan? = nil, token: String = "") -> TestClient.Call {
            var request = PBLockRequest()
            request.name = Data(name.utf8)
            request.lease = lease
            return start(.lock, request, timeout: timeout, token: token)
        }
        func unlock(_ key: String) async -> (messages: [[UInt8]], status: CallStatus) {
            var request = PBUnlockRequest()
            request.key = Data(key.utf8)
            return await start(.unlock, request).end()
        }
        func campaign(_ name: String, _ lease: Int64, _ value: String, timeout: TimeSpan? = nil) -> TestClient.Call {
            var request = PBCampaignRequest()
            request.name = Data(name.utf8)
            request.lease = lease
            request.value = Data(value.utf8)
            return start(.campaign, request, timeout: timeout)
        }
        func observe(_ name: String) -> TestClient.Call { start(.observe, question(name)) }
        func leader(_ name: String) async -> (messages: [[UInt8]], status: CallStatus) { await start(.leader, question(name)).end() }
        private func question(_ name: String) -> PBLeaderRequest {
            var request = PBLeaderRequest()
            request.name = Data(name.utf8)
            return request
        }
        func proclaim(_ leader: PBLeaderKey?, _ value: String) async -> (messages: [[UInt8]], status: CallStatus) {
            var request = PBProclaimRequest()
            if let leader { request.leader = leader }
            request.value = Data(value.utf8)
            return await start(.proclaim, request).end()
        }
        func resign(_ leader: PBLeaderKey?) async -> (messages: [[UInt8]], status: CallStatus) {
            var request = PBResignRequest()
            if let leader { request.leader = leader }
            return await start(.resign, request).end()
        }

        /// The keys under `prefix`, as the member has applied them.
        func keys(_ prefix: String) async -> [String] {
            let answer = await client.call(.range, rangeRequest(prefix, end: prefix + "\u{7f}"))
            return (answer.messages.first.map { Fields($0).bytes[2] ?? [] } ?? []).map { Fields($0).text(1) }
        }
    }

    private func run(_ count: Int = 1, _ body: (FaultTestBed, Caller) async throws -> Void) async throws {
        try await FaultTestBed.run(count) { bed in
            let leader = try await bed.leader()
            try await body(bed, Caller(client: try await bed.client(count == 1 ? leader : bed.followers(of: leader)[0])))
        }
    }

    private func locked(_ call: TestClient.Call) async throws -> PBLockResponse {
        let answer = await call.end()
        #expect(answer.status.code == .ok, "\(answer.status)")
        return try PBLockResponse(decoding: try #require(answer.messages.first))
    }

    private func elected(_ call: TestClient.Call) async throws -> PBCampaignResponse {
        let answer = await call.end()
        #expect(answer.status.code == .ok, "\(answer.status)")
        return try PBCampaignResponse(decoding: try #require(answer.messages.first))
    }

    private func text(_ data: Data) -> String { String(decoding: data, as: UTF8.self) }

    @Test func locksPassOnInTheOrderInWhichTheyWereAskedFor() async throws {
        try await run(3) { bed, caller in
            for lease in Int64(0xa1)...0xa4 { await caller.grant(lease) }
            let first = try await locked(caller.lock("L", 0xa1))
            #expect(text(first.key) == "L/a1" && first.header.revision == 2 && first.header.clusterID != 0 && first.header.memberID != 0 && first.header.raftTerm > 0)
            // Whoever has it gets it again, at once and with the same key.
            #expect(text(try await locked(caller.lock("L", 0xa1)).key) == "L/a1")
            var waiting: [TestClient.Call] = []
            for lease in Int64(0xa2)...0xa4 {
                waiting.append(caller.lock("L", lease))
                try await bed.wait("the key of \(lease)") { await caller.keys("L/").count == waiting.count + 1 }
            }
            // A waiter in the middle leaves: the one behind it must not have the turn before the first goes.
            waiting[1].cancel()
            try await bed.wait("the key of the one that left is gone") { await caller.keys("L/") == ["L/a1", "L/a2", "L/a4"] }
            #expect((await caller.unlock("L/a1")).status.code == .ok)
            let second = try await locked(waiting[0])
            #expect(text(second.key) == "L/a2" && second.header.revision == 7)
            await caller.revoke(0xa2)
            let last = try await locked(waiting[2])
            #expect(text(last.key) == "L/a4")
            #expect(await caller.keys("L/") == ["L/a4"])
            let gone = await caller.unlock("L/a1")
            #expect(gone.status.code == .ok && Fields(gone.messages[0]).message(1)!.number(3) > 0, "unlocking what is not locked succeeds")
        }
    }

    @Test func callersThatGiveUpLeaveNoKey() async throws {
        try await run { bed, caller in
            for lease in Int64(1)...3 { await caller.grant(lease) }
            _ = try await locked(caller.lock("L", 1))
            let late = await caller.lock("L", 2, timeout: .milliseconds(300)).end()
            #expect(late.status.code == .deadlineExceeded && late.status.message == "context deadline exceeded")
            try await bed.wait("the late one's key is gone") { await caller.keys("L/") == ["L/1"] }
            // The same when the connection goes, with several calls on it.
            let other = Caller(client: try await TestClient.connect(bed.cluster.nodes[0].clientURL.port, group: MultiThreadedEventLoopGroup.singleton))
            _ = other.lock("L", 2)
            _ = other.campaign("L", 3, "v")
            try await bed.wait("their keys") { await caller.keys("L/").count == 3 }
            await other.client.close()
            try await bed.wait("their keys are gone") { await caller.keys("L/") == ["L/1"] }
            // Whoever holds the lock and asks again until the time is up still holds it.
            _ = await caller.lock("L", 1, timeout: .milliseconds(1)).end()
            #expect(await caller.keys("L/") == ["L/1"])
            // What a member tells of itself is some milliseconds old.
            try await bed.wait("nobody waits, so nothing watches") { bed.status(bed.ids[0])?.watchers == 0 }
        }
    }

    /// The client leaves while its key is being put: the key that comes is taken back, but not one that was there before.
    @Test func aKeyThatComesAfterItsCallerLeftIsTakenBack() async throws {
        try await TestBed.run { bed in
            let held = Held()
            try await bed.member.setScript { event, member in
                guard case .request(let token, .propose(.txn, let body, _), _, _) = event, held.takes(token, body) else { return false }
                return true
            }
            let client = try await bed.client()
            var request = PBLockRequest()
            request.name = Data("L".utf8)
            request.lease = 7
            let call = client.start(.lock)
            call.send(request.encoded())
            call.halfClose()
            #expect(await eventually { held.first != nil })
            call.cancel()
            // What comes later on the connection is answered, so the reset has been read.
            #expect((await client.call(.status)).status.code == .ok)
            let (token, _) = try #require(held.first)
            var put = ByteWriter()
            TxnResult(revision: Revision(5), succeeded: true, responses: []).encode(header: ResponseHeader(), into: &put)
            let answer = put.bytes
            bed.member.loop.execute { bed.member.answer(token, .encoded(answer)) }
            #expect(await eventually { held.count == 2 })
            let taken = try #require(held.last).body.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                return try TxnRequest.decode(&reader)
            }
            #expect(taken.compare == [Compare(key: Array("L/7".utf8), target: .createRevision, operand: .createRevision(5))])
            #expect(taken.success == [.deleteRange(DeleteRangeRequest(key: Array("L/7".utf8)))])
            #expect(!bed.member.events.contains { if case .cancel(token) = $0 { true } else { false } }, "the member would have forgotten to answer")
        }
    }

    /// Transactions that the member has not answered.
    private final class Held: @unchecked Sendable {
        private let lock = NSLock()
        private var all: [(token: RequestToken, body: [UInt8])] = []
        func takes(_ token: RequestToken, _ body: [UInt8]) -> Bool {
            lock.withLock { all.append((token, body)) }
            return true
        }
        var first: (token: RequestToken, body: [UInt8])? { lock.withLock { all.first } }
        var last: (token: RequestToken, body: [UInt8])? { lock.withLock { all.last } }
        var count: Int { lock.withLock { all.count } }
    }

    @Test func lostSessionsAreTold() async throws {
        try await run { bed, caller in
            let unknown = await caller.lock("L", 404).end()
            #expect(unknown.status.code == .unknown && unknown.status.message == "etcdserver: requested lease not found")
            #expect((await caller.campaign("L", 404, "v").end()).status.message == "etcdserver: requested lease not found")
            for lease in Int64(1)...3 { await caller.grant(lease) }
            _ = try await locked(caller.lock("L", 1))
            let waiter = caller.lock("L", 2)
            try await bed.wait("the waiter's key") { await caller.keys("L/").count == 2 }
            let candidate = caller.campaign("L", 3, "v")
            try await bed.wait("the candidate's key") { await caller.keys("L/").count == 3 }
            // Both lose their leases while they wait: they learn it when their turn would come.
            await caller.revoke(2)
            await caller.revoke(3)
            _ = await caller.unlock("L/1")
            let lost = await waiter.end()
            #expect(lost.status.code == .unknown && lost.status.message == "mutex: session is expired")
            let beaten = await candidate.end()
            #expect(beaten.status.code == .unknown && beaten.status.message == "election: session is expired")
            #expect((await caller.unlock("")).status.message == "etcdserver: key is not provided")
            // Without a lease the server grants one of a minute.
            let own = try await locked(caller.lock("M", 0))
            let lease = try #require(Int64(text(own.key).dropFirst(2), radix: 16))
            let state = await caller.client.call(.leaseTimeToLive, numberRequest(lease))
            #expect(Fields(state.messages[0]).number(4) == 60)
        }
    }

    @Test func leadersAreElectedSpeakAndResign() async throws {
        try await run(3) { bed, caller in
            for lease in Int64(0x11)...0x13 { await caller.grant(lease) }
            let nobody = await caller.leader("E")
            #expect(nobody.status.code == .unknown && nobody.status.message == "election: no leader")
            let observer = caller.observe("E")
            let first = try await elected(caller.campaign("E", 0x11, "one"))
            #expect(text(first.leader.key) == "E/11" && text(first.leader.name) == "E" && first.leader.rev == first.header.revision && first.leader.lease == 0x11)
            func seen() async throws -> PBLeaderResponse { try PBLeaderResponse(decoding: try #require(await observer.next())) }
            let told = try await seen()
            #expect(text(told.kv.value) == "one" && told.kv.modRevision == told.header.revision && told.header.memberID != 0)
            #expect((await caller.proclaim(first.leader, "two")).status.code == .ok)
            let again = try await seen()
            #expect(text(again.kv.value) == "two" && again.header.revision == first.leader.rev + 1 && again.kv.createRevision == first.leader.rev)
            let leader = try PBLeaderResponse(decoding: try #require(await caller.leader("E").messages.first))
            #expect(text(leader.kv.key) == "E/11" && text(leader.kv.value) == "two" && leader.kv.lease == 0x11)
            // The same lease with another value proclaims it; with the same value nothing changes.
            let renewed = try await elected(caller.campaign("E", 0x11, "three"))
            #expect(renewed.leader == first.leader)
            #expect(text(try await seen().kv.value) == "three")
            let heir = caller.campaign("E", 0x12, "heir")
            try await bed.wait("the heir's key") { await caller.keys("E/").count == 2 }
            let quitter = caller.campaign("E", 0x13, "quitter")
            try await bed.wait("the third key") { await caller.keys("E/").count == 3 }
            quitter.cancel()
            try await bed.wait("the third key is gone") { await caller.keys("E/").count == 2 }
            // A proof that is not the leader's moves nothing.
            var stale = first.leader
            stale.rev += 1
            #expect((await caller.proclaim(stale, "lie")).status.message == "election: not leader")
            #expect((await caller.resign(stale)).status.code == .ok)
            #expect(await caller.keys("E/").count == 2)
            #expect((await caller.resign(first.leader)).status.code == .ok)
            let second = try await elected(heir)
            #expect(text(second.leader.key) == "E/12")
            #expect(text(try await seen().kv.value) == "heir")
            // Fenced: the first leader's word counts no longer.
            let fenced = await caller.proclaim(first.leader, "ghost")
            #expect(fenced.status.code == .unknown && fenced.status.message == "election: not leader")
            for missing in [await caller.proclaim(nil, "x"), await caller.resign(nil)] {
                #expect(missing.status.code == .unknown && missing.status.message == "\"leader\" field must be provided")
            }
            await caller.revoke(0x12)
            #expect((await caller.leader("E")).status.message == "election: no leader")
            let third = try await elected(caller.campaign("E", 0x13, "late"))
            #expect(text(try await seen().kv.value) == "late")
            #expect(third.leader.rev > second.leader.rev)
            observer.cancel()
            try await bed.wait("no watcher is left") { bed.ids.allSatisfy { bed.status($0)?.watchers == 0 } }
        }
    }

    /// An observer that does not read holds a bounded part of what happens; it gets the rest in order once it reads.
    @Test func anObserverThatDoesNotReadIsHeldBack() async throws {
        try await run { bed, caller in
            await caller.grant(1)
            let slow = Caller(client: try await TestClient.connect(bed.cluster.nodes[0].clientURL.port, group: MultiThreadedEventLoopGroup.singleton))
            let observer = slow.observe("E")
            let leader = try await elected(caller.campaign("E", 1, "begin")).leader
            #expect(await observer.next() != nil)
            observer.pause()
            let body = String(repeating: "x", count: 50_000)
            for number in 0..<200 { #expect((await caller.proclaim(leader, "\(number) \(body)")).status.code == .ok) }
            observer.resume()
            var last = -1
            while last < 199 {
                let message = try PBLeaderResponse(decoding: try #require(await observer.next()))
                let number = try #require(Int(text(message.kv.value).split(separator: " ")[0]))
                #expect(number > last)
                last = number
            }
        }
    }

    /// A long queue: each release wakes the next and nobody else.
    @Test func aLongQueueIsServedInOrder() async throws {
        try await run { bed, caller in
            let count = 300
            for lease in 1...Int64(count) { await caller.grant(lease) }
            _ = try await locked(caller.lock("L", 1))
            var waiting: [TestClient.Call] = []
            for lease in 2...Int64(count) {
                waiting.append(caller.lock("L", lease))
                try await bed.wait("key \(lease)") { Int64(await caller.keys("L/").count) == lease }
            }
            try await bed.wait("one watcher for each") { bed.status(bed.ids[0])?.watchers == count - 1 }
            for lease in 2...Int64(count) {
                _ = await caller.unlock("L/" + String(lease - 1, radix: 16))
                #expect(text(try await locked(waiting[Int(lease - 2)]).key) == "L/" + String(lease, radix: 16))
            }
            #expect(await caller.keys("L/") == ["L/" + String(count, radix: 16)])
        }
    }

    /// Both services act as their caller.
    @Test func callersNeedTheRightsOfTheCallsUnderneath() async throws {
        try await run { bed, caller in
            func names(_ first: String, _ second: String = "") -> [UInt8] {
                var writer = ByteWriter()
                writer.writeField(1, Array(first.utf8))
                writer.writeField(2, Array(second.utf8))
                return writer.bytes
            }
            let client = caller.client
            for (user, password) in [("root", "r"), ("alice", "a")] { #expect((await client.call(.userAdd, names(user, password))).status.code == .ok) }
            for role in ["root", "mine", "blind"] { _ = await client.call(.roleAdd, names(role)) }
            var grant = PBAuthRoleGrantPermissionRequest()
            grant.name = "mine"
            grant.perm.key = Data("mine/".utf8)
            grant.perm.rangeEnd = Data("mine0".utf8)
            grant.perm.permType = .readwrite
            #expect((await client.call(.roleGrantPermission, grant.encoded())).status.code == .ok)
            // May write its key and not read the queue.
            grant.perm.key = Data("blind/".utf8)
            grant.perm.rangeEnd = Data("blind0".utf8)
            grant.perm.permType = .write
            #expect((await client.call(.roleGrantPermission, grant.encoded())).status.code == .ok)
            _ = await client.call(.userGrantRole, names("root", "root"))
            _ = await client.call(.userGrantRole, names("alice", "mine"))
            for lease in Int64(1)...2 { await caller.grant(lease) }
            #expect((await client.call(.authEnable)).status.code == .ok)
            func token(_ user: String, _ password: String) async throws -> String {
                let answer = await client.call(.authenticate, names(user, password))
                return Fields(try #require(answer.messages.first)).text(2)
            }
            let alice = try await token("alice", "a")
            let refused = await caller.lock("L", 1, token: alice).end()
            #expect(refused.status.message == "etcdserver: permission denied")
            #expect((await caller.lock("blind", 1, token: alice).end()).status.message == "etcdserver: permission denied")
            #expect((await caller.lock("mine", 1).end()).status.message == "etcdserver: user name is empty")
            #expect((await caller.leader("mine")).status.message == "etcdserver: user name is empty")
            #expect(text(try await locked(caller.lock("mine", 1, token: alice)).key) == "mine/1")
            // A waiter that leaves takes its key back with its own rights.
            let waiter = caller.lock("mine", 2, token: alice)
            try await bed.wait("the waiter watches") { bed.status(bed.ids[0])?.watchers == 1 }
            waiter.cancel()
            let root = try await token("root", "r")
            try await bed.wait("the waiter's key is gone") {
                let answer = await client.call(.range, rangeRequest("a", end: "z"), metadata: [MetadataField("token", root)])
                return Fields(answer.messages[0]).bytes[2]?.map { Fields($0).text(1) } == ["mine/1"]
            }
        }
    }
}
