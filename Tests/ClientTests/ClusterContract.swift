import Base
import Client
import Testing

/// What the client library and any etcd-compatible cluster do together. Each case takes endpoints and nothing else, and
/// works below a prefix of its own, so that the same cases run against a real etcd and against our nodes.
struct ContractCase: Sendable, CustomTestStringConvertible {
    var name: String
    var body: @Sendable (EtcdClient, _ prefix: String) async throws -> Void
    var testDescription: String { name }

    func run(_ endpoints: [String]) async throws {
        var configuration = ClientConfiguration(endpoints: [])
        for text in endpoints { configuration.endpoints.append(try Endpoint(text)) }
        let client = try EtcdClient(configuration: configuration)
        let prefix = "contract/\(name)/\(UInt64.random(in: 0 ... .max))/"
        do {
            try await within(.seconds(30)) { try await body(client, prefix) }
        } catch {
            await client.close()
            throw error
        }
        await client.close()
    }

    static let all: [ContractCase] = [
        ContractCase(name: "putGetDelete") { client, prefix in
            let key = prefix + "a"
            #expect(try await client.get(key) == nil)
            let first = try await client.put(key, "one")
            let kv = try #require(try await client.get(key))
            #expect(kv.valueText == "one" && kv.version == 1)
            #expect(kv.createRevision == first.header.revision && kv.modRevision == first.header.revision)
            let second = try await client.put(PutCommand(Array(key.utf8), Array("two".utf8), wantsPrevious: true))
            #expect(second.previous?.valueText == "one")
            #expect(second.header.revision == first.header.revision.next)
            let deletion = try await client.delete(DeleteCommand(.single(Key(key)), wantsPrevious: true))
            #expect(deletion.deleted == 1 && deletion.previous.map(\.valueText) == ["two"])
            #expect(try await client.get(key) == nil)
            let old = try await client.range(RangeQuery(.single(Key(key)), revision: first.header.revision))
            #expect(old.kvs.first?.valueText == "one")
        },
        ContractCase(name: "rawBytes") { client, prefix in
            let key = Array(prefix.utf8) + [0, 255, 128, 10]
            let value: [UInt8] = (0...255).map { $0 }
            try await client.put(key, value)
            #expect(try await client.get(key)?.value == value)
            #expect(try await client.get(key)?.key == key)
        },
        ContractCase(name: "rangeOptions") { client, prefix in
            for index in 0..<10 { try await client.put(prefix + "k\(index)", "\(9 - index)") }
            let all = try await client.range(RangeQuery(.prefix(Key(prefix))))
            #expect(all.count == 10 && all.kvs.count == 10 && !all.more)
            let limited = try await client.range(RangeQuery(.prefix(Key(prefix)), limit: 3))
            #expect(limited.count == 10 && limited.kvs.count == 3 && limited.more)
            var sorted = RangeQuery(.prefix(Key(prefix)), limit: 1)
            sorted.order = .ascending
            sorted.target = .value
            #expect(try await client.range(sorted).kvs.map(\.keyText) == [prefix + "k9"])
            let keys = try await client.range(RangeQuery(.prefix(Key(prefix)), keysOnly: true))
            #expect(keys.kvs.allSatisfy { $0.value.isEmpty } && keys.kvs.count == 10)
            let count = try await client.range(RangeQuery(.prefix(Key(prefix)), countOnly: true))
            #expect(count.count == 10 && count.kvs.isEmpty)
            var recent = RangeQuery(.prefix(Key(prefix)))
            recent.minModRevision = all.kvs[7].modRevision
            #expect(try await client.range(recent).kvs.count == 3)
            #expect(try await client.range(RangeQuery(.prefix(Key(prefix)), isSerializable: true)).count == 10)
        },
        ContractCase(name: "pages") { client, prefix in
            for index in 100..<125 { try await client.put(prefix + "\(index)", "v") }
            var keys: [String] = []
            var pages = 0
            var revisions: Set<Revision> = []
            for try await page in client.pages(RangeQuery(.prefix(Key(prefix))), pageSize: 7) {
                keys += page.kvs.map(\.keyText)
                pages += 1
                // A change between pages does not show.
                let header = try await client.put(prefix + "0\(pages)", "late").header
                revisions.insert(header.revision)
            }
            #expect(keys == (100..<125).map { prefix + "\($0)" })
            #expect(pages == 4 && revisions.count == 4)
        },
        ContractCase(name: "transactions") { client, prefix in
            let key = prefix + "t"
            let create = Transaction(if: [Comparison(key, .equal, .createRevision(.zero))],
                                     then: [.put(PutCommand(Array(key.utf8), [1])), .range(RangeQuery(.single(Key(key))))],
                                     else: [.range(RangeQuery(.single(Key(key))))])
            let first = try await client.txn(create)
            #expect(first.succeeded && first.outcomes.count == 2)
            guard case .range(let inner) = first.outcomes[1] else { Issue.record("\(first)"); return }
            #expect(inner.kvs.first?.value == [1])
            let second = try await client.txn(create)
            #expect(!second.succeeded && second.header.revision == first.header.revision)
            let nested = Transaction(
                if: [Comparison(key, .equal, .value([1])), Comparison(key, .greater, .version(0)), Comparison(.prefix(Key(prefix)), .notEqual, .lease(LeaseID(5)))],
                then: [.transaction(Transaction(if: [Comparison(key, .less, .modRevision(Revision(1)))], else: [.delete(DeleteCommand(.single(Key(key))))]))])
            let third = try await client.txn(nested)
            guard third.succeeded, case .transaction(let answer)? = third.outcomes.first, case .delete(let deletion)? = answer.outcomes.first else {
                Issue.record("\(third)")
                return
            }
            #expect(!answer.succeeded && deletion.deleted == 1)
        },
        ContractCase(name: "errors") { client, prefix in
            #expect(await failure { try await client.put("", "x") } as? EtcdError == .service(.emptyKey))
            #expect(await failure { try await client.put(prefix, "x", lease: LeaseID(0x7fff_1234)) } as? EtcdError == .service(.leaseNotFound))
            var future = RangeQuery(.single(Key(prefix)))
            future.revision = Revision(.max / 2)
            #expect(await failure { try await client.range(future) } as? EtcdError == .service(.futureRev))
            let double = Transaction(then: [.put(PutCommand(Array(prefix.utf8), [])), .put(PutCommand(Array(prefix.utf8), []))])
            #expect(await failure { try await client.txn(double) } as? EtcdError == .service(.duplicateKey))
            #expect(await failure { try await client.put(prefix, String(repeating: "x", count: 1_600_000)) } as? EtcdError == .service(.requestTooLarge))
            let huge = await failure { try await client.put(prefix, String(repeating: "x", count: 2_100_000)) } as? EtcdError
            guard case .service(let error)? = huge else { Issue.record("\(String(describing: huge))"); return }
            #expect(error.code == .resourceExhausted && error.message.hasPrefix("grpc: received message larger than max"))
        },
        ContractCase(name: "largeValues") { client, prefix in
            let value = (0..<1_400_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            for index in 0..<4 { try await client.put(Array((prefix + "\(index)").utf8), value) }
            let all = try await client.range(RangeQuery(.prefix(Key(prefix))))
            #expect(all.kvs.count == 4 && all.kvs.allSatisfy { $0.value == value })
        },
        ContractCase(name: "watchLive") { client, prefix in
            let watch = client.watch(prefix: prefix, wantsPrevious: true)
            let start = try await watch.started()
            try await client.put(prefix + "a", "1")
            try await client.put(prefix + "a", "2")
            try await client.txn(Transaction(then: (0..<3).map { .put(PutCommand(Array((prefix + "m\($0)").utf8), [])) }))
            try await client.delete(prefix + "a")
            var events: [WatchEvent] = []
            for try await batch in watch {
                events += batch.events
                if events.count >= 6 { break }
            }
            #expect(events.map(\.kind) == [.put, .put, .put, .put, .put, .delete])
            #expect(events.map { String($0.kv.keyText.dropFirst(prefix.count)) } == ["a", "a", "m0", "m1", "m2", "a"])
            #expect(events[0].isCreation && !events[1].isCreation)
            #expect(events[0].previous == nil && events[1].previous?.valueText == "1" && events[5].previous?.valueText == "2")
            #expect(events.allSatisfy { $0.kv.modRevision > start })
        },
        ContractCase(name: "watchHistory") { client, prefix in
            let first = try await client.put(prefix + "h", "0").header.revision
            for index in 1..<50 { try await client.put(prefix + "h", "\(index)") }
            var values: [String] = []
            for try await batch in client.watch(prefix: prefix, startRevision: first) {
                values += batch.events.map(\.kv.valueText)
                if values.count >= 50 { break }
            }
            #expect(values == (0..<50).map { "\($0)" })
        },
        ContractCase(name: "watchFilters") { client, prefix in
            var query = WatchQuery(.prefix(Key(prefix)))
            query.skipsPuts = true
            let watch = client.watch(query)
            _ = try await watch.started()
            try await client.put(prefix + "x", "1")
            try await client.delete(prefix + "x")
            var iterator = watch.makeAsyncIterator()
            #expect(try await iterator.next()?.events.map(\.kind) == [.delete])
        },
        ContractCase(name: "watchFragments") { client, prefix in
            let first = try await client.put(prefix + "0", String(repeating: "f", count: 900_000)).header.revision
            for index in 1..<5 { try await client.put(prefix + "\(index)", String(repeating: "f", count: 900_000)) }
            var count = 0
            for try await batch in client.watch(prefix: prefix, startRevision: first) {
                for event in batch.events {
                    #expect(event.kv.keyText == prefix + "\(count)" && event.kv.value.count == 900_000)
                    count += 1
                }
                if count == 5 { break }
            }
        },
        ContractCase(name: "watchProgress") { client, prefix in
            let watch = client.watch(prefix: prefix)
            let start = try await watch.started()
            watch.requestProgress()
            var iterator = watch.makeAsyncIterator()
            let batch = try #require(try await iterator.next())
            #expect(batch.isProgress && batch.header.revision >= start)
        },
        ContractCase(name: "leases") { client, prefix in
            let grant = try await client.grantLease(ttlSeconds: 60)
            #expect(grant.ttlSeconds == 60)
            try await client.put(prefix + "l", "x", lease: grant.id)
            let info = try await client.lease(grant.id, withKeys: true)
            #expect(info.grantedSeconds == 60 && info.remainingSeconds <= 60 && info.remainingSeconds > 50)
            #expect(info.keys == [Array((prefix + "l").utf8)])
            #expect(try await client.leases().contains(grant.id))
            #expect(try await client.keepLeaseAliveOnce(grant.id).ttlSeconds == 60)
            #expect(try await client.get(prefix + "l")?.lease == grant.id)
            try await client.revokeLease(grant.id)
            #expect(try await client.get(prefix + "l") == nil)
            #expect(try await client.lease(grant.id).remainingSeconds == -1)
            #expect(await failure { try await client.revokeLease(grant.id) } as? EtcdError == .service(.leaseNotFound))
            #expect(await failure { try await client.keepLeaseAliveOnce(grant.id) } as? EtcdError == .leaseExpired(grant.id))
        },
        ContractCase(name: "keepAlive") { client, prefix in
            let grant = try await client.grantLease(ttlSeconds: 2)
            try await client.put(prefix + "l", "x", lease: grant.id)
            let keeper = client.keepLeaseAlive(grant.id)
            var renewals = 0
            let start = ContinuousClock.now
            for try await renewal in keeper {
                #expect(renewal.ttlSeconds == grant.ttlSeconds)
                renewals += 1
                if ContinuousClock.now - start > .seconds(grant.ttlSeconds + 1) { break }
            }
            #expect(renewals >= 4)
            #expect(try await client.get(prefix + "l") != nil)
            try await client.revokeLease(grant.id)
            let error = await failure { for try await _ in client.keepLeaseAlive(grant.id) {} }
            #expect(error as? EtcdError == .leaseExpired(grant.id))
        },
        ContractCase(name: "elections") { client, prefix in
            let name = Array((prefix + "e").utf8)
            #expect(try await client.leader(of: name) == nil)
            // From before anybody leads.
            var observed = client.observe(election: name).makeAsyncIterator()
            let first = try await client.grantLease(ttlSeconds: 60).id, second = try await client.grantLease(ttlSeconds: 60).id
            let one = try await client.campaign(name, value: Array("one".utf8), lease: first)
            let seen = try await observed.next()
            #expect(seen?.valueText == "one" && seen?.key == one.key && seen?.createRevision == one.revision && seen?.lease == first)
            try await client.proclaim(Array("one still".utf8), as: one)
            #expect(try await observed.next()?.valueText == "one still")
            let waiting = Task { try await client.campaign(name, value: Array("two".utf8), lease: second) }
            try await until("the second's key") { try await client.range(RangeQuery(.prefix(Key(name + [UInt8(ascii: "/")])), countOnly: true)).count == 2 }
            // One who comes late hears of the one who leads.
            var late = client.observe(election: name).makeAsyncIterator()
            #expect(try await late.next()?.valueText == "one still")
            try await client.resign(one)
            let two = try await waiting.value
            for iterator in [observed, late] {
                var iterator = iterator
                let leader = try await iterator.next()
                #expect(leader?.valueText == "two" && leader?.key == two.key && leader?.createRevision == two.revision)
            }
            await #expect(throws: EtcdError.service(.electionNotLeader)) { try await client.proclaim([], as: one) }
            try await client.resign(two)
            try await client.revokeLease(first)
            try await client.revokeLease(second)
        },
        ContractCase(name: "maintenance") { client, _ in
            let members = try await client.members()
            #expect(!members.members.isEmpty && members.header.revision == .zero)
            for endpoint in client.configuration.endpoints {
                let status = try await client.status(of: endpoint)
                #expect(!status.version.isEmpty && status.dbSizeBytes > 0 && status.leader != .none && status.raftTerm > .zero)
                #expect(members.members.contains { $0.id == status.header.memberID })
                #expect(status.latency.nanoseconds > 0)
                #expect(try await client.isServing(endpoint))
            }
            let revision = try await client.range(RangeQuery(.single(Key("x")))).header.revision
            var hashes: Set<UInt32> = []
            for endpoint in client.configuration.endpoints {
                hashes.insert(try await client.hashKV(of: endpoint, revision: revision).hash)
            }
            #expect(hashes.count == 1)
            #expect(try await client.alarms().isEmpty)
            #expect(try await !client.authStatus().isEnabled)
        },
        ContractCase(name: "snapshot") { client, prefix in
            try await client.put(prefix + "s", String(repeating: "s", count: 100_000))
            var size = 0
            var last: UInt64 = .max
            for try await piece in client.snapshot() {
                size += piece.bytes.count
                #expect(piece.remainingBytes <= last)
                last = piece.remainingBytes
            }
            #expect(last == 0 && size % 512 == 32 && size > 4_096)
        },
    ]

    /// Not in `all`, since it takes history away from the others: watching from a compacted revision.
    static let compaction = ContractCase(name: "compaction") { client, prefix in
        let first = try await client.put(prefix + "c", "1").header.revision
        try await client.put(prefix + "c", "2")
        let third = try await client.put(prefix + "c", "3").header.revision
        try await client.compact(third, isPhysical: true)
        #expect(await failure { try await client.range(RangeQuery(.single(Key(prefix + "c")), revision: first)) } as? EtcdError == .service(.compacted))
        var iterator = client.watch(prefix: prefix, startRevision: first).makeAsyncIterator()
        #expect(await failure { try await iterator.next() } as? EtcdError == .compacted(third))
        var kept = client.watch(prefix: prefix, startRevision: third).makeAsyncIterator()
        #expect(try await kept.next()?.events.first?.kv.valueText == "3")
    }

    /// Not in `all`, since it turns authentication on and off.
    static let authentication = ContractCase(name: "authentication") { client, prefix in
        try await client.addUser("root", password: "secret")
        try await client.grantRole("root", to: "root")
        try await client.addRole("reader")
        try await client.grantPermission(Permission(.read, .prefix(Key(prefix))), to: "reader")
        try await client.addUser("alice", password: "wonder")
        try await client.grantRole("reader", to: "alice")
        #expect(try await client.permissions(of: "reader") == [Permission(.read, .prefix(Key(prefix)))])
        try await client.put(prefix + "a", "1")
        try await client.enableAuth()
        func named(_ user: String, _ password: String) throws -> EtcdClient {
            var configuration = client.configuration
            configuration.user = user
            configuration.password = password
            return try EtcdClient(configuration: configuration)
        }
        let root = try named("root", "secret")
        let alice = try named("alice", "wonder")
        let wrong = try named("alice", "wrong")
        let outcome = await failure {
            #expect(await failure { try await client.get(prefix + "a") } as? EtcdError == .service(.userEmpty))
            #expect(try await alice.get(prefix + "a")?.valueText == "1")
            #expect(await failure { try await alice.put(prefix + "a", "2") } as? EtcdError == .service(.permissionDenied))
            #expect(await failure { try await wrong.get(prefix + "a") } as? EtcdError == .service(.authFailed))
            var refused = alice.watch(prefix: "somewhere else").makeAsyncIterator()
            #expect(await failure { try await refused.next() } as? EtcdError == .service(.permissionDenied))
            #expect(try await root.users() == ["alice", "root"])
            // The token dies with the password; the client gets another.
            try await root.put(prefix + "a", "3")
            #expect(try await alice.get(prefix + "a")?.valueText == "3")
        }
        try await root.disableAuth()
        for user in ["alice", "root"] { try await client.deleteUser(user) }
        try await client.deleteRole("reader")
        for client in [root, alice, wrong] { await client.close() }
        if let outcome { throw outcome }
    }
}
