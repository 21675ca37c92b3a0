@testable import UI

/// Situations worth a picture. The same ones are recorded at several sizes.
enum Scene: String, CaseIterable {
    case first, overview, attached, node, keys, search, edit, conflict, delete, watch, help, helpKeys, palette, quit, lost
    case electionsEmpty, elections, electionsLive, electionsSteps, electionsCompare, electionsPolled, replay
    case chaos, chaosQuiet, chaosForm, chaosLocked, scenario, log, logHeld, logAttached, mosaic

    static func play(_ scene: Scene, _ size: Size, glyphs: GlyphSet = .unicode) -> Session {
        var session = Session(size, kind: scene.isAttached ? .attached : .playground, mode: scene.isAttached ? .ask : .readWrite, glyphs: glyphs)
        run(scene, &session)
        return session
    }

    var isAttached: Bool { [.attached, .electionsPolled, .chaosLocked, .logAttached].contains(self) }

    private static func run(_ scene: Scene, _ s: inout Session) {
        switch scene {
        case .first: s.model = Model(size: s.model.size, now: s.model.now, cluster: ClusterState(name: "demo", kind: .playground), glyphs: s.model.glyphs)
        case .overview: Sample.live(&s)
        case .attached:
            s.tell(.cluster(s.model.cluster))
            s.wait(3_000)
            s.tell(.cluster(s.model.cluster))
        case .electionsEmpty:
            s.tell(.cluster(s.model.cluster))
            s.wait(4_000)
            s.tell(.cluster(s.model.cluster))
            s.press(KeyPress("4"))
        case .electionsLive:
            ElectionScript.minute(start: s.model.now).play(to: &s, until: 21_800_000)
            s.press(KeyPress("4"))
            s.wait(200)
        case .elections:
            ElectionScript.minute(start: s.model.now).play(to: &s)
            s.press(KeyPress("4"), KeyPress("("), KeyPress("("))
        case .electionsSteps:
            run(.elections, &s)
            s.press(KeyPress(.down), KeyPress(.down), KeyPress(.down), KeyPress(.down))
        case .electionsCompare:
            run(.elections, &s)
            s.press(KeyPress("b"), KeyPress(")"), KeyPress("c"))
        case .replay:
            run(.elections, &s)
            s.tell(.replay(ReplayState(start: s.model.now.advanced(byMilliseconds: -59_900), end: s.model.now.advanced(byMilliseconds: 40_000), position: s.model.now, isPlaying: true, speed: 2,
                                       elections: [-53_889, -37_786, -13_551, 22_000].map { s.model.now.advanced(byMilliseconds: $0) })))
        case .electionsPolled:
            s.tell(.cluster(s.model.cluster))
            s.press(KeyPress("4"))
            s.wait(3_000)
            var state = s.model.cluster
            state.members[2].health = .down(since: s.model.now, reason: "connection refused")
            state.members[2].role = .unknown
            s.tell(.events([ClusterEvent(id: 50, at: s.model.now, kind: .memberDown(member: "n3", reason: "connection refused", byYou: false, wasLeader: true))]))
            s.tell(.cluster(state))
            s.wait(1_400)
            state.members[0].role = .leader
            for index in 0..<2 { state.members[index].term = 13 }
            s.tell(.cluster(state))
            s.tell(.events([ClusterEvent(id: 51, at: s.model.now, kind: .elected(leader: "n1", previous: "n3", fromTerm: 12, term: 13, unavailableMilliseconds: 1_400, toleranceMilliseconds: 250))]))
            s.wait(4_000)
            s.tell(.cluster(state))
        case .lost:
            run(.overview, &s)
            var state = s.model.cluster
            state.connection = .lost(since: s.model.now, reason: "connection refused")
            s.tell(.cluster(state))
            s.wait(12_000)
        case .node:
            run(.overview, &s)
            s.press(.enter)
        case .keys:
            s.tell(.cluster(s.model.cluster))
            s.press(KeyPress("2"))
            s.wait()
            s.press(KeyPress(":"))
            s.type("go /app/web/cfg/flags\n")
            s.wait(400)
            s.meanwhile { $0.put("/app/web/cfg/limits", #"{"rps":300}"#) }
            s.wait(400)
            s.tell(.cluster(s.model.cluster))
        case .search:
            run(.keys, &s)
            s.press(KeyPress("/"))
            s.type("api")
            s.wait(400)
        case .edit:
            run(.keys, &s)
            s.press(KeyPress("e"), KeyPress(.down), KeyPress(.down), KeyPress(.end), KeyPress(.backspace), KeyPress(.backspace), KeyPress(.backspace))
            s.type("60,")
        case .conflict:
            run(.edit, &s)
            s.meanwhile { $0.put("/app/web/cfg/flags", #"{"beta":true,"ttl":45,"regions":["eu"],"owner":null}"#) }
            s.press(.control("s"))
            s.wait(300)
        case .delete:
            run(.keys, &s)
            s.press(KeyPress("h"), KeyPress("D"))
            s.type("cf")
        case .help:
            run(.overview, &s)
            s.press(KeyPress("?"))
        case .helpKeys:
            run(.keys, &s)
            s.press(KeyPress("?"))
        case .palette:
            run(.overview, &s)
            s.press(KeyPress(":"))
            s.type("kil")
        case .quit:
            run(.overview, &s)
            s.press(.control("c"))
        case .watch:
            s.tell(.cluster(s.model.cluster))
            s.press(KeyPress("3"), KeyPress("a"))
            s.type("/app/\n")
            s.press(KeyPress("a"))
            s.type("/locks/\n")
            s.wait()
            s.press(.backTab)
            s.press(KeyPress("g"))
            s.press(KeyPress("k"), KeyPress(.enter))
            var revision: Int64 = 48_000
            for second in 0..<30 {
                var list: [WatchEvent] = []
                for index in 0..<(10 + (second * 7) % 13) {
                    revision += 1
                    let isDelete = index % 7 == 3
                    list.append(WatchEvent(at: s.model.now, revision: revision, isDelete: isDelete, key: KeyBytes("/app/web/cfg/\(["flags", "limits", "motd"][index % 3])"),
                                           value: isDelete ? [] : Array(#"{"rps":\#(revision)}"#.utf8), previousValue: index % 5 == 0 ? nil : Array(#"{"rps":\#(revision - 3)}"#.utf8), version: index % 5 == 0 ? 1 : 14, lease: 0))
                }
                s.tell(.watch(WatchID(number: 1), .events(list)))
                s.wait(1_000)
            }
            s.tell(.watch(WatchID(number: 1), .resuming(afterRevision: revision, reason: "lost n3")))
            s.tell(.watch(WatchID(number: 1), .resumed(afterRevision: revision, endpoint: "n2", milliseconds: 212)))
            s.tell(.cluster(s.model.cluster))
        case .chaosQuiet:
            s.tell(.cluster(s.model.cluster))
            s.tell(.faultSupport(FaultSupport(reasons: [.diskSlow: "needs our own nodes", .diskStuck: "needs our own nodes", .diskFull: "needs our own nodes", .diskBroken: "needs our own nodes", .clockJump: "needs our own nodes", .clockDrift: "needs our own nodes", .tornTail: "needs our own nodes"])))
            s.press(KeyPress("9"), KeyPress(.tab))
        case .chaos:
            Sample.chaos(&s)
            s.press(KeyPress("9"), KeyPress("G"), KeyPress("l"), KeyPress("l"), KeyPress("l"))
        case .chaosForm:
            run(.chaos, &s)
            s.press(KeyPress("F"))
            s.type("60")
            s.press(.tab)
        case .chaosLocked:
            s.tell(.cluster(s.model.cluster))
            s.press(KeyPress("9"))
        case .scenario:
            Sample.chaos(&s)
            s.tell(.scenario(ScenarioProgress(name: "leader-in-minority", title: "Leader in the minority", step: 3, steps: 8, caption: "n3 leads, but hears only n4: nothing it takes can be committed", waitingFor: "waits until the others elect (1.2 s)")))
            s.press(KeyPress("9"), KeyPress(.tab), KeyPress(.tab), KeyPress(.tab))
        case .log:
            Sample.logs(&s)
            s.press(KeyPress("0"))
        case .logHeld:
            Sample.logs(&s)
            s.press(KeyPress("0"), KeyPress("/"))
            s.type("vote\n")
            s.press(KeyPress("m"), KeyPress("n"), KeyPress("n"))
        case .logAttached:
            s.tell(.cluster(s.model.cluster))
            s.tell(.logs([LogLine(at: s.model.now, node: 0, level: .info, part: "journal", text: "attached to 127.0.0.1:2379"), LogLine(at: s.model.now, node: 0, level: .warning, part: "client", text: "127.0.0.1:22379 does not answer: connection refused")]))
            s.press(KeyPress("0"))
        case .mosaic:
            Sample.chaos(&s)
            Sample.logs(&s)
            s.press(KeyPress("3"), KeyPress("a"))
            s.type("/app/\n")
            let now = s.model.now
            let events = (0..<40).map { (index: Int) -> WatchEvent in
                let key = KeyBytes("/app/web/cfg/" + ["flags", "limits", "motd"][index % 3])
                return WatchEvent(at: now.advanced(byMilliseconds: Int64(index - 40) * 20), revision: 71_000 + Int64(index), isDelete: index % 9 == 4, key: key, value: Array("{\"rps\":\(index)}".utf8),
                                  previousValue: nil, version: Int64(index + 2), lease: 0)
            }
            s.tell(.watch(WatchID(number: 1), .events(events)))
            s.wait(1_000)
            Sample.samples(&s)
            s.press(KeyPress("1"))
        }
    }
}
