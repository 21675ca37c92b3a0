import Base
import Client
import Foundation
import Testing
import Wire

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

        @Test(arguments: EtcdRelease.allCases) func etcdctlPrintsTheSameForBoth(_ release: EtcdRelease) async throws {
            try await expectSameOnBoth { try await Self.run(Self.script, Etcdctl([$0.endpoint], $0.scratch, release)) }
        }

        private static func run(_ script: [Command], _ etcdctl: Etcdctl) async throws -> Transcript {
            var transcript = Transcript()
            for command in script {
                let result = normalised(try await etcdctl.run(command.arguments, input: command.input))
                transcript.add("etcdctl " + command.arguments.joined(separator: " "), "status \(result.status)\n\(result.output)\n\(result.errors)")
            }
            return transcript
        }

        /// Users, roles and permissions, and what they are refused. Only what etcd 3.5.1 and later ones agree on: they closed some calls that it left open.
        static let authScript: [Command] = [
            Command("auth enable"), Command("auth status -w json"), Command("auth disable"), Command("--user root:nothing get x"),
            Command("user add root:rootpw"), Command("user add alice:alicepw"), Command("user add bob --no-password"), Command("user add alice:again"), Command("user add carl:"),
            Command("user list"), Command("user list -w json"), Command("user get alice"), Command("user get nobody"), Command("user delete nobody"),
            Command("role add r"), Command("role add r"), Command("role add empty -w json"), Command("role list"), Command("role get empty"), Command("role get nothing"), Command("role delete nothing"),
            Command("role grant-permission r readwrite foo"), Command("role grant-permission r read bar/ --prefix"), Command("role grant-permission r write z --from-key"),
            Command("role grant-permission r read m p"), Command("role grant-permission r readwrite m p"), Command("role grant-permission nothing read a"), Command("role grant-permission r frob a"),
            Command("role get r"), Command("role get r -w json"), Command("role revoke-permission r m p"), Command("role revoke-permission r m p"), Command("role revoke-permission nothing m"),
            Command("user grant-role alice r"), Command("user grant-role alice r"), Command("user grant-role alice nothing"), Command("user grant-role nobody r"), Command("user get alice --detail"),
            Command("user revoke-role alice empty"), Command("user revoke-role nobody r"), Command("auth status -w json"), Command("put foo zero"), Command("put secret zero"), Command("put bar/1 one"),
            // etcdctl gives root its role by itself.
            Command("auth enable"), Command("get foo"), Command("put foo 1"), Command("auth status"), Command("user list"), Command("--user alice:wrong get foo"), Command("--user nobody:x get foo"),
            Command("--user bob:x get foo"), Command("--user carl:x get foo"), Command("--user alice:alicepw get foo"), Command("--user alice:alicepw put foo 1 -w json"),
            Command("--user alice:alicepw put foo 2 --prev-kv"), Command("--user alice:alicepw put secret 1"), Command("--user alice:alicepw get secret"), Command("--user alice:alicepw get bar/ --prefix"),
            Command("--user alice:alicepw get bar/ bar1"), Command("--user alice:alicepw put bar/1 2"), Command("--user alice:alicepw put zebra 1"), Command("--user alice:alicepw put zebra 1 --prev-kv"),
            Command("--user alice:alicepw get zebra"), Command("--user alice:alicepw del zebra"), Command("--user alice:alicepw del z --from-key"), Command("--user alice:alicepw del foo --prev-kv"),
            Command("--user alice:alicepw get '' --prefix"), Command("--user alice:alicepw get foo --consistency s"), Command("--user alice:alicepw get secret --consistency s"),
            Command("--user alice:alicepw txn", "value(\"foo\") = \"1\"\n\nput foo 2\n\nput foo 3\nget foo\n\n"), Command("--user alice:alicepw txn", "value(\"secret\") = \"1\"\n\nput foo 2\n\n\n"),
            Command("--user alice:alicepw txn", "value(\"foo\") = \"3\"\n\nput foo 4\n\nput secret 4\n\n"), Command("--user alice:alicepw txn", "\nget foo\nget secret\n\n\n"),
            Command("--user alice:alicepw user list"), Command("--user alice:alicepw user get alice"), Command("--user alice:alicepw user get root"), Command("--user alice:alicepw role get r"),
            Command("--user alice:alicepw role get root"), Command("--user alice:alicepw role list"), Command("--user alice:alicepw auth disable"), Command("--user alice:alicepw auth status"),
            Command("--user alice:alicepw user add mallory:x"), Command("--user alice:alicepw user grant-role alice root"), Command("--user alice:alicepw watch secret"),
            Command("--user root:rootpw auth status -w json"), Command("--user root:rootpw get '' --prefix -w json"), Command("--user root:rootpw user delete root"),
            Command("--user root:rootpw role delete root"), Command("--user root:rootpw user revoke-role root root"), Command("--user root:rootpw user passwd alice --interactive=false", "newpw\n"),
            Command("--user alice:alicepw get foo"), Command("--user alice:newpw get foo"), Command("--user root:rootpw user passwd nobody --interactive=false", "x\n"), Command("--user root:rootpw compaction 3"),
            Command("--user root:rootpw role delete r"), Command("--user alice:newpw get foo"), Command("--user root:rootpw user get alice"), Command("--user root:rootpw user delete alice"), Command("--user alice:newpw get foo"),
            Command("--user root:rootpw user list"), Command("--user root:rootpw role list"), Command("--user root:rootpw auth disable"), Command("auth status -w json"), Command("get foo"), Command("user delete root"),
        ]

        @Test(arguments: EtcdRelease.allCases) func etcdctlIsRefusedTheSameByBoth(_ release: EtcdRelease) async throws {
            try await expectSameOnBoth(ownFlags: ["--log-level", "debug"]) { subject in
                let transcript = try await Self.run(Self.authScript, Etcdctl([subject.endpoint], subject.scratch, release))
                if let cluster = subject.own { try Self.expectNoPasswords(in: cluster) }
                return transcript
            }
        }

        /// No password is in what the server says or keeps.
        private static func expectNoPasswords(in cluster: ServeCluster) throws {
            let files = try FileManager.default.subpathsOfDirectory(atPath: cluster.nodes[0].dataDirectory)
            #expect(files.count > 2)
            for password in ["rootpw", "alicepw", "newpw"] {
                #expect(!cluster.logs.contains(password))
                for file in files {
                    guard let data = FileManager.default.contents(atPath: cluster.nodes[0].dataDirectory + "/" + file) else { continue }
                    #expect(data.range(of: Data(password.utf8)) == nil, "\(password) in \(file)")
                }
            }
        }

        /// Up to the job itself: etcd 3.5 begins one and then never answers, since what it applies has no result. (Its etcdctl has no command for it.)
        @Test func downgradesAreAnsweredTheSameByBoth() async throws {
            try await expectSameOnBoth { subject in
                let client = try EtcdClient(endpoints: [subject.endpoint])
                var transcript = Transcript()
                for (action, version) in [(0, "3.4"), (0, "3.4.0"), (0, "3.4.7-rc.1"), (0, "3.5.0"), (0, "3.3"), (0, "x.y"), (0, ""), (0, "3"), (0, "3.4.0+m"), (2, ""), (2, "nonsense"), (1, "3.6.0"),
                                          (1, "3.3"), (1, "x")] {
                    var request = PBDowngradeRequest()
                    request.action = PBDowngradeRequest.DowngradeAction(rawValue: action)!
                    request.version = version
                    let answer: String
                    do { answer = try await client.call(.downgrade, request, PBDowngradeResponse.self).version } catch EtcdError.service(let error) { answer = "\(error)" }
                    transcript.add("\(action) \(version)", answer)
                }
                await client.close()
                return transcript
            }
        }

        @Test func statusHasTheFieldsOfEtcd() async throws {
            func keys(_ json: Any, _ path: String = "") -> Set<String> {
                if let object = json as? [String: Any] { return object.reduce(into: []) { $0.formUnion([path + $1.key]); $0.formUnion(keys($1.value, path + $1.key + ".")) } }
                if let list = json as? [Any] { return list.reduce(into: []) { $0.formUnion(keys($1, path)) } }
                return []
            }
            func status(_ ctl: Etcdctl) async throws -> Set<String> {
                _ = try await ctl("put", "a", "b")
                return keys(try JSONSerialization.jsonObject(with: Data(try await ctl("endpoint", "status", "-w", "json").utf8)))
            }
            try await expectSameOnBoth { subject in
                var transcript = Transcript()
                for field in try await status(Etcdctl([subject.endpoint], subject.scratch)).sorted() { transcript.add(field, "there") }
                return transcript
            }
        }

        /// Without what is each server's own: ids, terms, ports, lease ids; and without etcdctl's time stamps.
        static func normalised(_ result: Etcdctl.Result) -> Etcdctl.Result {
            func clean(_ text: String) -> String {
                var text = text
                for (pattern, replacement) in [
                    (#""(cluster_id|member_id|raft_term|ID)":\d+"#, #""$1":N"#), (#""(ClusterID|MemberID|RaftTerm)" : \d+"#, #""$1" : N"#),
                    (#""ts":("[^"]*"|[0-9.]+)"#, #""ts":T"#), (#"0xc[0-9a-f]+"#, "POINTER"), (#"client-[0-9a-f-]{36}"#, "CLIENT"), (#"127\.0\.0\.1:\d+"#, "ADDRESS"),
                    // A column of ids is as wide as the longest of them.
                    (#"(?m)^\| *[0-9a-f]{12,16} \|"#, "| ID |"), (#"(?m)^\| +ID +\|"#, "| ID |"), (#"(?m)^\+-{14,18}\+"#, "+----+"), (#"(?m)^[0-9a-f]{12,16}, "#, "ID, "), (#"(from|to) [0-9a-f]{12,16}"#, "$1 ID"),
                ] {
                    text = text.replacingOccurrences(of: pattern, with: replacement, options: .regularExpression)
                }
                return text
            }
            return Etcdctl.Result(status: result.status, output: clean(result.output), errors: clean(result.errors))
        }
    }
}
