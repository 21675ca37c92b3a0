import Base
import Client
import Foundation
import Testing

extension Integration {
    /// What a person types who knows etcd, with etcd's own tool against our server.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct EtcdctlTests {}
}

extension Integration.EtcdctlTests {
    @Test func getFindsWhatPutWrote() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            #expect(try await ctl("get", "nothing") == "")
            #expect(try await ctl("put", "foo", "bar") == "OK\n")
            #expect(try await ctl("put", "foo", "baz", "--prev-kv") == "OK\nfoo\nbar\n")
            for (key, value) in [("a/1", "x"), ("a/2", "z"), ("a/3", "y"), ("b", "")] { try await ctl("put", key, value) }

            #expect(try await ctl("get", "foo") == "foo\nbaz\n")
            #expect(try await ctl("get", "foo", "--print-value-only") == "baz\n")
            #expect(try await ctl("get", "foo", "--rev", "2") == "foo\nbar\n")
            #expect(try await ctl("get", "foo", "--rev", "2", "--consistency", "s") == "foo\nbar\n")
            #expect(try await ctl("get", "a/", "--prefix") == "a/1\nx\na/2\nz\na/3\ny\n")
            #expect(try await ctl("get", "a/", "--prefix", "--limit", "2") == "a/1\nx\na/2\nz\n")
            #expect(try await ctl("get", "a/2", "b") == "a/2\nz\na/3\ny\n")
            #expect(try await ctl("get", "a/3", "--from-key", "--keys-only") == "a/3\n\nb\n\nfoo\n\n")
            #expect(try await ctl("get", "a/", "--prefix", "--sort-by", "VALUE", "--order", "DESCEND", "--print-value-only") == "z\ny\nx\n")
            #expect(try await ctl("get", "", "--prefix", "--sort-by", "MODIFY", "--order", "DESCEND", "--limit", "2", "--keys-only") == "b\n\na/3\n\n")
            #expect(try await ctl("get", "", "--prefix", "--sort-by", "VERSION", "--order", "DESCEND", "--limit", "1", "--keys-only") == "foo\n\n")
            #expect(try await ctl("get", "a/", "--prefix", "--count-only", "-w", "fields").hasSuffix("\"More\" : false\n\"Count\" : 3\n"))

            let limited = try await ctl.json("get", "a/", "--prefix", "--limit", "2")
            #expect(limited["count"].number == 3 && limited["more"].value as? Bool == true && limited["kvs"].count == 2)
            #expect(limited["header"]["revision"].number == 7)
            let foo = try await ctl.json("get", "foo")["kvs"][0]
            #expect(foo["key"].decoded == "foo" && foo["value"].decoded == "baz")
            #expect(foo["create_revision"].number == 2 && foo["mod_revision"].number == 3 && foo["version"].number == 2)
        }
    }

    @Test func delRemovesKeysAndReturnsThemWhenAsked() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            for (key, value) in [("a/1", "x"), ("a/2", "y"), ("b", "z")] { try await ctl("put", key, value) }
            #expect(try await ctl("del", "nothing") == "0\n")
            #expect(try await ctl("del", "b", "--prev-kv") == "1\nb\nz\n")
            #expect(try await ctl("del", "a/", "--prefix") == "2\n")
            #expect(try await ctl("get", "", "--prefix") == "")
            // What is deleted is still in the past.
            #expect(try await ctl("get", "", "--prefix", "--rev", "4") == "a/1\nx\na/2\ny\nb\nz\n")
            #expect(try await ctl.json("get", "b")["header"]["revision"].number == 6)
        }
    }

    @Test func txnTakesOneOfItsTwoBranches() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            try await ctl("put", "x", "1")
            let script = "value(\"x\") = \"1\"\n\nput x 2\nget x\n\nput x 3\nget x\n\n"
            #expect(try await ctl("txn", input: script) == "SUCCESS\n\nOK\n\nx\n2\n")
            #expect(try await ctl("txn", input: script) == "FAILURE\n\nOK\n\nx\n3\n")
            #expect(try await ctl("txn", input: "mod(\"x\") > \"3\"\ncreate(\"new\") = \"0\"\n\nput new 1\nput other 2\n\n\n") == "SUCCESS\n\nOK\n\nOK\n")
            let both = try await ctl.json("get", "", "--prefix")
            #expect((0..<3).map { both["kvs"][$0]["mod_revision"].number } == [5, 5, 4], "two puts of one transaction have one revision")

            let twice = try await ctl.run(["txn"], input: "\nput x 1\nput x 2\n\n\n")
            #expect(twice.status != 0 && twice.error == "Error: etcdserver: duplicate key given in txn request")
        }
    }

    @Test func compactionForgetsTheStartOfHistory() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            for value in 1...6 { try await ctl("put", "k", "\(value)") }
            #expect(try await ctl("compaction", "4") == "compacted revision 4\n")
            #expect(try await ctl("get", "k", "--rev", "4", "--print-value-only") == "3\n", "the compacted revision itself can be read")
            let gone = try await ctl.run(["get", "k", "--rev", "3"])
            #expect(gone.status == 1 && gone.error == "Error: etcdserver: mvcc: required revision has been compacted")
            let again = try await ctl.run(["compaction", "4"])
            #expect(again.status == 1 && again.error == "Error: etcdserver: mvcc: required revision has been compacted")
            let future = try await ctl.run(["compaction", "99"])
            #expect(future.status == 1 && future.error == "Error: etcdserver: mvcc: required revision is a future revision")
            #expect(try await ctl("compaction", "6", "--physical") == "compacted revision 6\n")
            let unread = try await ctl.run(["get", "k", "--rev", "99"])
            #expect(unread.status == 1 && unread.error == "Error: etcdserver: mvcc: required revision is a future revision")
            let watch = try await ctl.run(["watch", "k", "--rev", "2"])
            #expect(watch.status != 0 && (watch.output + watch.errors).contains("watch was canceled (etcdserver: mvcc: required revision has been compacted)"))
        }
    }

    @Test func watchPrintsPastAndNewEvents() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            try await ctl("put", "w/1", "a")
            try await ctl("put", "other", "x")
            // From the next revision on: whether the watch is there before the put or after it, it sees it.
            let live = try ctl.start(["watch", "w/", "--prefix", "--rev", "4", "--prev-kv"])
            let past = try ctl.start(["watch", "w/1", "--rev", "1"])
            try await eventually("the first event\n\(past.errors)") { past.output == "PUT\nw/1\na\n" }
            try await ctl("put", "w/1", "b")
            try await ctl("put", "other", "y")
            try await ctl("txn", input: "\nput w/2 c\ndel w/1\n\n\n")
            try await eventually("the events of the prefix\n\(live.output)") {
                live.output == "PUT\nw/1\na\nw/1\nb\nPUT\nw/2\nc\nDELETE\nw/1\nb\nw/1\n\n"
            }
            try await eventually("the events of the key\n\(past.output)") { past.output == "PUT\nw/1\na\nPUT\nw/1\nb\nDELETE\nw/1\n\n" }
            live.signal(SIGINT)
            past.signal(SIGINT)
            _ = try await live.exit()
            _ = try await past.exit()
        }
    }

    @Test func leasesKeepTheirKeysUntilTheyEnd() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            func grant(_ seconds: Int) async throws -> String {
                let answer = try await ctl("lease", "grant", "\(seconds)")
                let words = answer.split(separator: " ")
                try #require(words.count > 1 && answer.hasSuffix("granted with TTL(\(seconds)s)\n"), "\(answer)")
                return String(words[1])
            }
            #expect(try await ctl("lease", "list") == "found 0 leases\n")
            let lease = try await grant(600)
            #expect(try await ctl("lease", "list") == "found 1 leases\n\(lease)\n")
            try await ctl("put", "held/2", "v", "--lease", lease)
            try await ctl("put", "held/1", "v", "--lease", lease)
            let status = try await ctl("lease", "timetolive", lease, "--keys")
            #expect(status.hasPrefix("lease \(lease) granted with TTL(600s), remaining(") && status.hasSuffix("), attached keys([held/1 held/2])\n"), "\(status)")
            #expect(try await ctl("lease", "keep-alive", "--once", lease) == "lease \(lease) keepalived with TTL(600)\n")
            #expect(try await ctl("lease", "revoke", lease) == "lease \(lease) revoked\n")
            #expect(try await ctl("get", "held/", "--prefix") == "")
            #expect(try await ctl("lease", "timetolive", lease) == "lease \(lease) already expired\n")
            let unknown = try await ctl.run(["put", "k", "v", "--lease", "1234"])
            #expect(unknown.status == 1 && unknown.error == "Error: etcdserver: requested lease not found")

            let start = ContinuousClock.now
            let short = try await grant(2)
            try await ctl("put", "short", "v", "--lease", short)
            #expect(try await ctl("get", "short", "--print-value-only") == "v\n")
            try await eventually("expiry of the lease", seconds: 15) { try await ctl("get", "short") == "" }
            #expect(ContinuousClock.now - start >= .seconds(2), "a lease never ends early")
            #expect(try await ctl("lease", "list") == "found 0 leases\n")
        }
    }

    @Test func hashkvAgreesWithEtcd() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            func hash(_ revision: Int = 0) async throws -> [Int64?] {
                let answer = try await ctl.json("endpoint", "hashkv", "--rev", "\(revision)")[0]["HashKV"]
                return [answer["header"]["revision"].number, answer["hash"].number, answer["compact_revision"].number]
            }
            // Recorded from etcd 3.5.
            #expect(try await hash() == [1, 1_084_519_789, -1])
            let steps: [([String], String, Int64, Int64, Int64)] = [
                (["put", "foo", "bar"], "", 2, 3_305_255_506, -1),
                (["put", "foo", "baz"], "", 3, 2_020_292_994, -1),
                (["put", "a", ""], "", 4, 2_673_401_265, -1),
                (["del", "foo"], "", 5, 708_043_971, -1),
                (["txn"], "\nput x 1\nput y 2\n\n\n", 6, 3_977_841_661, -1),
                (["put", "x", "3"], "", 7, 349_537_406, -1),
                (["compaction", "4", "--physical"], "", 7, 2_489_526_336, 4),
                (["compaction", "6", "--physical"], "", 7, 1_954_047_954, 6),
            ]
            for (command, input, revision, expected, compacted) in steps {
                let result = try await ctl.run(command, input: input)
                #expect(result.status == 0, "\(command): \(result.errors)")
                #expect(try await hash() == [revision, expected, compacted], "after \(command)")
                if compacted == 4 {
                    #expect(try await hash(5)[1] == 1_146_139_272)
                    #expect(try await hash(6)[1] == 2_563_201_950)
                }
            }
        }
    }

    @Test func memberListAndEndpointCommandsDescribeTheCluster() async throws {
        try await withServers(3) { cluster in
            let ctl = cluster.etcdctl
            let list = try await ctl("member", "list").split(separator: "\n").map { $0.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) } }
            #expect(list.count == 3)
            for node in cluster.nodes {
                let line = try #require(list.first { $0.count == 6 && $0[2] == node.name }, "\(list)")
                #expect(line[1] == "started" && line[3] == "http://127.0.0.1:\(node.peerPort)" && line[4] == "http://127.0.0.1:\(node.clientPort)" && line[5] == "false")
            }
            let members = try await ctl.json("member", "list")
            #expect(members["members"].count == 3 && members["header"]["revision"].number == nil, "headers of member calls have no revision")
            #expect(Set((0..<3).map { members["members"][$0]["name"].text }) == ["n1", "n2", "n3"])
            let table = try await ctl("member", "list", "-w", "table")
            #expect(table.contains("|        ID        | STATUS  | NAME |") && list.allSatisfy { table.contains($0[0]) })

            let status = try await ctl.json("endpoint", "status", "--cluster")
            #expect(status.count == 3)
            let leaders = Set((0..<3).map { status[$0]["Status"]["leader"].unsigned })
            #expect(leaders.count == 1 && leaders.first != 0)
            #expect((0..<3).allSatisfy { status[$0]["Status"]["version"].text?.hasPrefix("3.5") == true && status[$0]["Status"]["dbSize"].number ?? 0 > 0 })
            #expect(try await ctl("endpoint", "status", "-w", "table").split(separator: "\n").count == 7)

            let health = try await ctl.json("endpoint", "health")
            #expect(health.count == 3 && (0..<3).allSatisfy { health[$0]["health"].value as? Bool == true })
            #expect(try await ctl("alarm", "list") == "")
            let hashes = try await ctl.json("endpoint", "hashkv", "--cluster")
            #expect((0..<3).allSatisfy { hashes[$0]["HashKV"]["hash"].number == 1_084_519_789 })

            // A member that is down is told apart, and the exit status says so.
            let victim = try #require(cluster.nodes.last)
            try await victim.kill()
            let unhealthy = try await ctl.run(["endpoint", "health"])
            #expect(unhealthy.status != 0 && unhealthy.errors.contains("\(victim.endpointText) is unhealthy"), "\(unhealthy)")
        }
    }

    @Test func moveLeaderMakesAnotherMemberLead() async throws {
        try await withServers(3) { cluster in
            let ctl = cluster.etcdctl
            let status = try await ctl.json("endpoint", "status")
            let leader = try #require(status[0]["Status"]["leader"].unsigned)
            let other = try #require((0..<3).compactMap { status[$0]["Status"]["header"]["member_id"].unsigned }.first { $0 != leader })
            let hex = { (id: UInt64) in String(id, radix: 16) }
            let answer = try await ctl("move-leader", hex(other))
            #expect(answer.hasPrefix("Leadership transferred from \(hex(leader)) to \(hex(other))"), "\(answer)")
            try await eventually("the new leader on all members") {
                let now = try await ctl.json("endpoint", "status")
                return (0..<3).allSatisfy { now[$0]["Status"]["leader"].unsigned == other }
            }
            try await ctl("put", "after", "v")
            let nonsense = try await ctl.run(["move-leader", "1234"])
            #expect(nonsense.status != 0 && nonsense.error.contains("etcdserver: bad leader transferee"), "\(nonsense)")
        }
    }

    @Test func badRequestsEndWithEtcdsWords() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            try await ctl("put", "k", "v")
            let cases: [([String], Int32, String)] = [
                (["put", "", "v"], 1, "Error: etcdserver: key is not provided"),
                (["put", "missing", "--ignore-value"], 1, "Error: etcdserver: key not found"),
                (["put", "missing", "v", "--ignore-lease"], 1, "Error: etcdserver: key not found"),
                (["lease", "revoke", "77"], 1, "Error: failed to revoke lease (etcdserver: requested lease not found)"),
                (["lease", "grant", "9000000001"], 1, "Error: failed to grant lease (etcdserver: too large lease TTL)"),
                (["move-leader", "77"], 1, "bad leader transferee"),
                (["member", "promote", "77"], 1, "Error: etcdserver: member not found"),
                (["auth", "enable"], 1, "Error: etcdserver: root user does not exist"),
            ]
            for (arguments, status, words) in cases {
                let result = try await ctl.run(arguments)
                #expect(result.status == status && result.error.contains(words), "\(arguments): \(result)")
            }
            // More than --max-request-bytes, and the server goes on.
            let large = try await ctl.run(["put", "large"], input: String(repeating: "x", count: 1_600_000))
            #expect(large.status == 1 && large.error == "Error: etcdserver: request is too large", "\(large.error)")
            #expect(try await ctl("get", "k", "--print-value-only") == "v\n")
        }
    }
}
