import Base
import Client
import Foundation
import Testing

extension Integration {
    /// Locks and elections as etcd's own tools and clients have them, against our servers and, where it can be compared, a real etcd.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct LockElectionTests {}
}

extension Integration.LockElectionTests {
    private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    @Test func etcdctlLocksExcludeEachOther() async throws {
        try await withServers(3) { cluster in
            let ctl = cluster.etcdctl
            let first = try ctl.start(["lock", "mutex"])
            try await eventually("the first lock\n\(first.errors)") { first.output.hasPrefix("mutex/") }
            let second = try ctl.start(["lock", "mutex", "--ttl", "5"])
            let third = try ctl.start(["lock", "mutex", "echo", "inside"])
            try await eventually("three keys") { (try await ctl("get", "mutex/", "--prefix", "--keys-only")).split(separator: "\n").count == 3 }
            #expect(second.output == "" && third.output == "")
            first.signal(SIGINT)
            _ = try await first.exit()
            // Whoever dies keeps its key until its lease ends.
            try await eventually("the next lock\n\(second.errors)\(third.errors)") { second.output.hasPrefix("mutex/") || third.output.contains("inside") }
            second.signal(SIGKILL)
            _ = try await second.exit()
            try await eventually("the third lock after the lease of the dead one\n\(third.errors)") { third.output == "inside\n" }
            #expect(try await third.exit() == 0)
        }
    }

    @Test func etcdctlElectsAndListens() async throws {
        try await withServers(3) { cluster in
            let ctl = cluster.etcdctl
            let listener = try ctl.start(["elect", "-l", "seat"])
            let first = try ctl.start(["elect", "seat", "alice"])
            try await eventually("alice leads\n\(first.errors)") { first.output.contains("alice") }
            let second = try ctl.start(["elect", "seat", "bob"])
            try await eventually("two candidates") { (try await ctl("get", "seat/", "--prefix", "--keys-only")).split(separator: "\n").count == 2 }
            #expect(second.output == "")
            first.signal(SIGINT)
            _ = try await first.exit()
            try await eventually("bob leads\n\(second.errors)") { second.output.contains("bob") }
            try await eventually("the listener has heard of both: \(listener.output)") { listener.output.contains("alice") && listener.output.contains("bob") }
            for process in [listener, second] {
                process.signal(SIGINT)
                _ = try await process.exit()
            }
        }
    }

    /// Waiters go on when the leader of the cluster is killed, wherever they wait.
    @Test func waitersOutliveTheLeaderOfTheCluster() async throws {
        try await withServers(3) { cluster in
            let leader = try await cluster.waitForLeader()
            let survivor = cluster.nodes.first { $0 !== leader }!
            let client = try EtcdClient(endpoints: [survivor.endpointText])
            let holder = try await client.grantLease(ttlSeconds: 600).id, next = try await client.grantLease(ttlSeconds: 600).id
            let key = try await client.lock(bytes("L"), lease: holder)
            let waiter = Task { [client] in try await client.lock(Array("L".utf8), lease: next, options: CallOptions(timeout: .seconds(60))) }
            try await eventually("the waiter's key") { try await client.range(RangeQuery(.prefix(Key("L/")))).kvs.count == 2 }
            try await leader.kill()
            try await client.unlock(key, options: CallOptions(timeout: .seconds(60)))
            #expect(String(decoding: try await waiter.value, as: UTF8.self) == "L/" + String(next.rawValue, radix: 16))
            await client.close()
        }
    }

    /// Each step's outcome as text, the same for both servers but for what is each one's own.
    @Test func bothServersAnswerTheSame() async throws {
        try await expectSameOnBoth { subject in
            let client = try EtcdClient(endpoints: [subject.endpoint])
            var transcript = Transcript()
            func note(_ what: String, _ body: () async throws -> String) async {
                do { transcript.add(what, try await body()) } catch let error as EtcdError {
                    // Whose clock is first does not matter.
                    let isLate = "\(error)".contains("context deadline exceeded")
                    if case .service(let failure) = error, !isLate {
                        transcript.add(what, "\(failure.code.metricName) \(failure.message)")
                    } else {
                        transcript.add(what, isLate ? "time limit passed" : "\(error)")
                    }
                } catch { transcript.add(what, "\(error)") }
            }
            func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
            func revision() async throws -> Int64 { try await client.range(RangeQuery(.single(Key("x")))).header.revision.rawValue }
            for id in [Int64(0x10), 0x11, -0x12] { _ = try await client.grantLease(ttlSeconds: 600, id: LeaseID(id)) }
            let short = CallOptions(timeout: .milliseconds(300))
            await note("lock") { text(try await client.lock(bytes("L"), lease: LeaseID(0x10))) }
            await note("lock again") { text(try await client.lock(bytes("L"), lease: LeaseID(0x10))) }
            await note("revision") { "\(try await revision())" }
            await note("lock of a lease that is not there") { text(try await client.lock(bytes("L"), lease: LeaseID(0x404))) }
            await note("lock that waits") { text(try await client.lock(bytes("L"), lease: LeaseID(0x11), options: short)) }
            try await eventually("the waiter's key is gone") { try await client.range(RangeQuery(.prefix(Key("L/")))).kvs.count == 1 }
            await note("revision after it") { "\(try await revision())" }
            await note("unlock nothing") { try await client.unlock(bytes("nothing")); return "OK" }
            await note("unlock without a key") { try await client.unlock([]); return "OK" }
            await note("unlock") { try await client.unlock(bytes("L/10")); return "OK" }
            await note("lock without a name") { text(try await client.lock([], lease: LeaseID(-0x12))) }
            await note("leader of none") { "\(try await client.leader(of: bytes("E"))?.valueText ?? "nobody")" }
            var won = LeaderKey(name: [], key: [], revision: .zero, lease: .none)
            await note("campaign") { won = try await client.campaign(bytes("E"), value: bytes("one"), lease: LeaseID(0x10)); return "\(text(won.name)) \(text(won.key)) \(won.revision.rawValue) \(won.lease.rawValue)" }
            await note("campaign again") { let again = try await client.campaign(bytes("E"), value: bytes("two"), lease: LeaseID(0x10)); return "\(again == won)" }
            await note("campaign that waits") { text(try await client.campaign(bytes("E"), value: bytes("x"), lease: LeaseID(0x11), options: short).key) }
            try await eventually("the candidate's key is gone") { try await client.range(RangeQuery(.prefix(Key("E/")))).kvs.count == 1 }
            await note("leader") { let kv = try await client.leader(of: bytes("E"))!; return "\(kv.keyText) \(kv.valueText) \(kv.createRevision.rawValue) \(kv.modRevision.rawValue) \(kv.version) \(kv.lease.rawValue)" }
            await note("proclaim") { try await client.proclaim(bytes("three"), as: won); return "OK" }
            var stale = won
            stale.revision = Revision(won.revision.rawValue + 1)
            await note("proclaim by another") { try await client.proclaim(bytes("lie"), as: stale); return "OK" }
            await note("proclaim without a key") { try await client.proclaim(bytes("x"), as: LeaderKey(name: [], key: [], revision: Revision(5), lease: LeaseID(0x10))); return "OK" }
            await note("resign by another") { try await client.resign(stale); return "OK" }
            await note("leader still") { "\(try await client.leader(of: bytes("E"))?.valueText ?? "nobody")" }
            await note("resign") { try await client.resign(won); return "OK" }
            await note("resign again") { try await client.resign(won); return "OK" }
            await note("leader after") { "\(try await client.leader(of: bytes("E"))?.valueText ?? "nobody")" }
            await note("campaign of a lease that is not there") { text(try await client.campaign(bytes("E"), value: [], lease: LeaseID(0x404)).key) }
            await note("a value that is too large") { text(try await client.campaign(bytes("E"), value: [UInt8](repeating: 1, count: 1_600_000), lease: LeaseID(0x11)).key) }
            await note("revision at the end") { "\(try await revision())" }
            await client.close()
            return transcript
        }
    }
}
