import Foundation
import Testing

extension Integration {
    /// The same etcdctl commands against real etcd and against our server: what they print may differ only in names and numbers
    /// that are each server's own.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct DifferentialTests {
        struct Command {
            var arguments: [String]
            var input = ""
            init(_ line: String, _ input: String = "") {
                arguments = line.split(separator: " ").map { $0 == "''" ? "" : String($0) }
                self.input = input
            }
        }

        static let script: [Command] = [
            Command("get none"), Command("put foo bar"), Command("put foo baz -w json"), Command("put foo bay --prev-kv"), Command("put foo bax --prev-kv -w json"),
            Command("put a/1 1"), Command("put a/2 2"), Command("put a/3 3"), Command("put b zero"), Command("put empty ''"), Command("put input", "from\nstdin"),
            Command("get foo"), Command("get foo -w json"), Command("get foo -w fields"), Command("get foo -w simple --hex"), Command("get foo --print-value-only"),
            Command("get foo --keys-only"), Command("get a/ --prefix"), Command("get a/ --prefix --keys-only -w json"), Command("get a/ --prefix --limit 2"),
            Command("get a/ --prefix --limit 2 -w json"), Command("get a/ --prefix --limit 3 -w json"), Command("get a/ --prefix --count-only"),
            Command("get a/ --prefix --count-only -w json"), Command("get a/ --prefix --count-only -w fields"), Command("get a/ b"), Command("get b a/"),
            Command("get a/ --from-key"), Command("get a/ --from-key --limit 1 -w json"), Command("get '' --prefix --sort-by MODIFY --order DESCEND"),
            Command("get '' --prefix --sort-by VERSION --order ASCEND"), Command("get '' --prefix --sort-by CREATE --order DESCEND"),
            Command("get '' --prefix --sort-by VALUE --order ASCEND"), Command("get '' --prefix --sort-by VALUE --order DESCEND --limit 2 -w json"),
            Command("get '' --prefix --sort-by KEY --order DESCEND --limit 2"), Command("get foo --rev 2"), Command("get foo --rev 3 -w json"),
            Command("get '' --prefix --rev 5 -w json"), Command("get foo --rev 1"), Command("get foo --rev 999"), Command("get foo --rev -1"),
            Command("get foo --consistency s"), Command("get foo --consistency x"), Command("get foo --prefix --from-key"), Command("get foo --sort-by NOPE"),
            Command("get"), Command("put"), Command("put '' v"), Command("get '' -w json"), Command("del ''"),
            Command("put k v --lease 1234"), Command("put k v --ignore-value"), Command("put k --ignore-value"), Command("put foo --ignore-value"),
            Command("put foo v --ignore-lease"), Command("put foo --ignore-lease"), Command("put k v --ignore-lease"),
            Command("endpoint hashkv -w json"), Command("endpoint hashkv --rev 4 -w json"), Command("endpoint hashkv --rev 400 -w json"),
            Command("del none"), Command("del none -w json"), Command("del foo --prev-kv"), Command("del a/ --prefix --prev-kv -w json"), Command("del a/ --prefix"),
            Command("del '' --from-key -w json"), Command("get '' --prefix -w json"), Command("get '' --prefix --rev 8 -w json"), Command("put x 1"),
            Command("txn", "value(\"x\") = \"1\"\n\nput x 2\nget x\n\nput x 3\n\n"), Command("txn", "value(\"x\") = \"1\"\n\nput x 2\n\nput x 3\nget x\ndel x\n\n"),
            Command("txn -w json", "value(\"x\") = \"1\"\n\nput x 2\n\nput x 3\nget x\ndel none\n\n"), Command("txn -w json", "ver(\"x\") > \"0\"\n\nput y 2\n\nput y 3\n\n"),
            Command("txn", "mod(\"x\") < \"1\"\ncreate(\"x\") = \"0\"\n\nput y 2\n\nget y\n\n"), Command("txn", "lease(\"y\") = \"0\"\n\nput y 2\nput y 3\n\n\n"),
            Command("txn -w json", "value(\"absent\") != \"1\"\n\nput absent 2\n\nput absent 3\n\n"), Command("txn -w json", "\nget x\nget y\n\n\n"), Command("txn -w json", "\ndel none\n\n\n"),
            Command("txn -w json", "\ndel x\nput z 1\nget '' --prefix\n\n\n"), Command("txn", "bogus\n\n\n\n"), Command("txn", "value(\"x\") = \"1\"\n\nfrob\n\n\n"),
            Command("endpoint hashkv -w json"), Command("compaction 5"), Command("compaction 5"), Command("compaction 999"), Command("compaction 9 --physical"), Command("compaction 0"),
            Command("compaction x"), Command("compaction -1"), Command("get x --rev 3"), Command("get x --rev 8"), Command("get x --rev 9 -w json"),
            Command("endpoint hashkv -w json"), Command("endpoint hashkv --rev 5 -w json"), Command("watch x --rev 3"),
            Command("lease list"), Command("lease timetolive 1"), Command("lease timetolive 1 -w json"), Command("lease revoke 77"), Command("lease keep-alive --once 77"),
            Command("lease grant 0 -w json"), Command("lease grant -10 -w json"), Command("lease grant x"), Command("lease grant 9000000001"),
            Command("alarm list"), Command("alarm list -w json"), Command("alarm disarm"), Command("member list"), Command("member list -w json"), Command("member list -w table"),
            Command("move-leader 1234"), Command("auth status -w json"), Command("put after all -w json"), Command("frob"), Command("get foo --bogus"),
        ]

        @Test func etcdctlPrintsTheSameForBoth() async throws {
            try await withRealEtcd { endpoint, scratch in
                let etcd = Etcdctl([endpoint], scratch)
                try await withServers { cluster in
                    let own = cluster.etcdctl
                    for (number, command) in Self.script.enumerated() {
                        let theirs = try await etcd.run(command.arguments, input: command.input)
                        let ours = try await own.run(command.arguments, input: command.input)
                        #expect(Self.normalised(ours) == Self.normalised(theirs), "command \(number): etcdctl \(command.arguments.joined(separator: " "))")
                    }
                }
            }
        }

        /// Without what is each server's own: ids, terms, ports, lease ids; and without etcdctl's time stamps.
        static func normalised(_ result: Etcdctl.Result) -> Etcdctl.Result {
            func clean(_ text: String) -> String {
                var text = text
                for (pattern, replacement) in [
                    (#""(cluster_id|member_id|raft_term|ID)":\d+"#, #""$1":N"#), (#""(ClusterID|MemberID|RaftTerm)" : \d+"#, #""$1" : N"#),
                    (#""ts":("[^"]*"|[0-9.]+)"#, #""ts":T"#), (#"0xc[0-9a-f]+"#, "POINTER"), (#"127\.0\.0\.1:\d+"#, "ADDRESS"),
                    (#"(?m)^\| *[0-9a-f]{14,16} \|"#, "| ID |"), (#"(?m)^[0-9a-f]{14,16}, "#, "ID, "), (#"(from|to) [0-9a-f]{14,16}"#, "$1 ID"),
                ] {
                    text = text.replacingOccurrences(of: pattern, with: replacement, options: .regularExpression)
                }
                return text
            }
            return Etcdctl.Result(status: result.status, output: clean(result.output), errors: clean(result.errors))
        }
    }
}
